// Begins Swagger UI over the description of this API, with the token that the front page has asked for.
window.addEventListener("load", () => {
  const token = () => sessionStorage.getItem("trivium.token");
  if (!token()) {
    location.replace("/#docs");
    return;
  }
  SwaggerUIBundle({
    url: "/admin/openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    validatorUrl: null,
    presets: [SwaggerUIBundle.presets.apis],
    requestInterceptor: (request) => {
      if (new URL(request.url, location).origin === location.origin) request.headers.Authorization = `Bearer ${token()}`;
      return request;
    },
  });
});
