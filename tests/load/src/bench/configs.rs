//! The configuration files of the two sides.

use std::{net::SocketAddr, path::Path};

/// The gateway: one passthrough model over two targets, one translated model.
pub(super) fn gateway(listen: SocketAddr, admin: SocketAddr, mock: SocketAddr, data: &Path) -> String {
    let data = data.display();
    format!(
        r#"listen: {listen}
admin: {admin}
data: "{data}"
providers:
  mock: {{ kind: openai, base_url: "http://{mock}/v1", api_key: "sk-mock" }}
  mock_a: {{ kind: anthropic, base_url: "http://{mock}/v1", api_key: "sk-mock" }}
models:
  m: {{ targets: [mock/m, mock/m2], balance: round_robin }}
  claude: mock_a/claude-haiku-4-5
"#
    )
}

/// The yardstick: a plain reverse proxy with nothing left to tune but its buffers.
pub(super) fn nginx(listen: SocketAddr, mock: SocketAddr, prefix: &Path, root: bool) -> String {
    // Without it, root's nginx gives its worker to a user who may not write into the prefix.
    let user = if root { "user root;\n" } else { "" };
    let prefix = prefix.display();
    format!(
        r#"{user}daemon off;
worker_processes 1;
pid "{prefix}/nginx.pid";
error_log "{prefix}/error.log" warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_timeout 300s;
    keepalive_requests 1000000000;
    client_max_body_size 64m;
    client_body_buffer_size 1m;
    client_body_temp_path "{prefix}/body";
    proxy_temp_path "{prefix}/proxy";
    fastcgi_temp_path "{prefix}/fastcgi";
    uwsgi_temp_path "{prefix}/uwsgi";
    scgi_temp_path "{prefix}/scgi";
    upstream mock {{
        server {mock};
        keepalive 512;
        keepalive_requests 1000000000;
        keepalive_time 24h;
        keepalive_timeout 300s;
    }}
    server {{
        listen {listen} backlog=4096;
        location = /healthz {{ return 200 "ok"; }}
        location / {{
            proxy_pass http://mock;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"#
    )
}
