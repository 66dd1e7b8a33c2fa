//! Each link of AWS's chain, roles, and what is signed in the end.

use super::*;

const ENV_KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AKIDENV"), ("AWS_SECRET_ACCESS_KEY", "env-secret")];
/// No profile files, no metadata service of the machine that runs the test.
const NOTHING: [(&str, &str); 3] = [("AWS_CONFIG_FILE", "/nowhere/config"), ("AWS_SHARED_CREDENTIALS_FILE", "/nowhere/credentials"), ("AWS_EC2_METADATA_DISABLED", "true")];

fn bedrock(config: &str, env: &[(&str, &str)]) -> Result<Credential, CredentialError> {
    // What comes later counts.
    credential(BEDROCK, config, &[&NOTHING[..], env].concat())
}

/// Whose key signed, with what session token.
async fn signer(credential: &Credential) -> (String, String) {
    let headers = applied(credential).await.unwrap();
    let text = headers["authorization"].to_str().unwrap();
    assert!(text.contains("/us-east-1/bedrock/aws4_request") && headers["authorization"].is_sensitive());
    let id = text.split_once("Credential=").unwrap().1.split('/').next().unwrap().to_owned();
    (id, headers.get("x-amz-security-token").map_or(String::new(), |t| t.to_str().unwrap().to_owned()))
}

fn sts_answer(action: &str, id: &str) -> (u16, String) {
    (
        200,
        format!(
            "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n  <{action}Result>\n    <AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/r/s</Arn></AssumedRoleUser>\n    <Credentials>\n      <SessionToken>session/{id}==</SessionToken>\n      <SecretAccessKey>role-secret</SecretAccessKey>\n      <Expiration>2999-01-01T00:00:00Z</Expiration>\n      <AccessKeyId>{id}</AccessKeyId>\n    </Credentials>\n  </{action}Result>\n</{action}Response>"
        ),
    )
}

fn keys_answer(id: &str) -> (u16, String) {
    (200, format!(r#"{{"Code":"Success","AccessKeyId":"{id}","SecretAccessKey":"s","Token":"session-{id}","Expiration":"2999-01-01T00:00:00Z"}}"#))
}

#[tokio::test]
async fn keys_of_configuration_environment_and_profile() {
    let credentials = Temp::file("[default]\naws_access_key_id=AKIDFILE\naws_secret_access_key=s\n[work]\naws_access_key_id=AKIDWORK\naws_secret_access_key=s\naws_session_token=w\n");
    let file = ("AWS_SHARED_CREDENTIALS_FILE", credentials.name());
    let own = r#"{"aws":{"access_key_id":"AKIDOWN","secret_access_key":"s","session_token":"o"}}"#;
    let work = r#"{"aws":{"profile":"work"}}"#;
    for (config, env, id, token) in [
        (own, vec![file, ENV_KEYS[0], ENV_KEYS[1]], "AKIDOWN", "o"),
        (work, vec![file, ENV_KEYS[0], ENV_KEYS[1]], "AKIDWORK", "w"),
        ("{}", vec![file, ENV_KEYS[0], ENV_KEYS[1], ("AWS_SESSION_TOKEN", "e")], "AKIDENV", "e"),
        ("{}", vec![file, ("AWS_PROFILE", "work")], "AKIDWORK", "w"),
        ("{}", vec![file, ("AWS_WEB_IDENTITY_TOKEN_FILE", "/x")], "AKIDFILE", ""),
    ] {
        let credential = bedrock(config, &env).unwrap();
        assert!(credential.is_static());
        assert_eq!(signer(&credential).await, (id.to_owned(), token.to_owned()));
    }
    let key = bedrock("{}", &[ENV_KEYS[0], ENV_KEYS[1], ("AWS_BEARER_TOKEN_BEDROCK", "abc")]).unwrap();
    assert_eq!(authorization(&key).await, "Bearer abc");
    assert_eq!(signer(&bedrock(own, &[("AWS_BEARER_TOKEN_BEDROCK", "abc")]).unwrap()).await.0, "AKIDOWN");
}

#[tokio::test]
async fn web_identity() {
    let fake = Fake::with(|_| sts_answer("AssumeRoleWithWebIdentity", "ASIAWEB")).await;
    let file = Temp::file("the-jwt\n");
    let env = [("AWS_WEB_IDENTITY_TOKEN_FILE", file.name()), ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"), ("AWS_ROLE_SESSION_NAME", "pod"), ("AWS_ENDPOINT_URL_STS", &fake.url)];
    let credential = bedrock("{}", &env).unwrap();
    assert!(!credential.is_static());
    assert_eq!(signer(&credential).await, ("ASIAWEB".to_owned(), "session/ASIAWEB==".to_owned()));
    let seen = &fake.seen()[0];
    assert_eq!((seen.method.as_str(), seen.header("authorization")), ("POST", ""));
    for (name, value) in [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("RoleArn", "arn:aws:iam::1:role/r"),
        ("RoleSessionName", "pod"),
        ("WebIdentityToken", "the-jwt"),
        ("DurationSeconds", "3600"),
    ] {
        assert_eq!(seen.field(name).unwrap(), value);
    }
    assert!(refused(bedrock("{}", &env[..1]), &[]).contains("AWS_ROLE_ARN"));
}

#[tokio::test]
async fn container() {
    let fake = Fake::with(|_| keys_answer("ASIATASK")).await;
    let url = format!("{}/v1/credentials", fake.url);
    let file = Temp::file("pod-token");
    let env = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()), ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.name()), ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "other")];
    assert_eq!(signer(&bedrock("{}", &env).unwrap()).await, ("ASIATASK".to_owned(), "session-ASIATASK".to_owned()));
    let seen = &fake.seen()[0];
    assert_eq!((seen.path.as_str(), seen.header("authorization")), ("/v1/credentials", "pod-token"));
    assert!(refused(bedrock("{}", &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.com/")]), &[]).contains("must begin with https://"));
    let denied = Fake::with(|_| (200, r#"{"Code":"AssumeRoleUnauthorizedAccess","Message":"x"}"#.to_owned())).await;
    let credential = bedrock("{}", &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &denied.url)]).unwrap();
    assert!(refused(applied(&credential).await, &[]).contains("without credentials (AssumeRoleUnauthorizedAccess)"));
}

#[tokio::test]
async fn instance() {
    let fake = Fake::with(|seen| match (seen.method.as_str(), seen.path.as_str()) {
        ("PUT", "/latest/api/token") if seen.header("x-aws-ec2-metadata-token-ttl-seconds") == "300" => (200, "imds-token".to_owned()),
        ("GET", "/latest/meta-data/iam/security-credentials/") if seen.header("x-aws-ec2-metadata-token") == "imds-token" => (200, "my-role\n".to_owned()),
        ("GET", "/latest/meta-data/iam/security-credentials/my-role") if seen.header("x-aws-ec2-metadata-token") == "imds-token" => keys_answer("ASIAEC2"),
        _ => (404, String::new()),
    })
    .await;
    let env = [("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", fake.url.as_str())];
    assert_eq!(signer(&bedrock("{}", &env).unwrap()).await, ("ASIAEC2".to_owned(), "session-ASIAEC2".to_owned()));
    assert_eq!(fake.seen().len(), 3);
    let empty = Fake::with(|_| (403, String::new())).await;
    let message = refused(applied(&bedrock("{}", &[env[0], ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &empty.url)]).unwrap()).await, &[]);
    assert!(message.contains(&format!("{}/latest/api/token answered 403", empty.url)) && message.contains("AWS_ACCESS_KEY_ID"), "{message}");
}

#[tokio::test]
async fn role_on_top() {
    let fake = Fake::with(|_| sts_answer("AssumeRole", "ASIAROLE")).await;
    let config = r#"{"aws":{"assume_role":{"arn":"arn:aws:iam::2:role/b","external_id":"x&y"}}}"#;
    let credential = bedrock(config, &[ENV_KEYS[0], ENV_KEYS[1], ("AWS_SESSION_TOKEN", "base"), ("AWS_ENDPOINT_URL_STS", &fake.url)]).unwrap();
    assert_eq!(signer(&credential).await, ("ASIAROLE".to_owned(), "session/ASIAROLE==".to_owned()));
    let seen = &fake.seen()[0];
    assert!(seen.header("authorization").starts_with("AWS4-HMAC-SHA256 Credential=AKIDENV/"), "{}", seen.header("authorization"));
    assert!(seen.header("authorization").contains("/us-east-1/sts/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-security-token,"));
    assert_eq!((seen.header("x-amz-security-token"), seen.header("host")), ("base", fake.host()));
    for (name, value) in [("Action", "AssumeRole"), ("RoleArn", "arn:aws:iam::2:role/b"), ("ExternalId", "x&y"), ("RoleSessionName", "trivium")] {
        assert_eq!(seen.field(name).unwrap(), value);
    }
}

#[tokio::test]
async fn role_refused() {
    let fake = Fake::with(|_| {
        (403, "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>User AKIDENV may not sts:AssumeRole with env-secret</Message></Error></ErrorResponse>".to_owned())
    })
    .await;
    let config = r#"{"aws":{"assume_role":{"arn":"arn:aws:iam::2:role/b"}}}"#;
    let credential = bedrock(config, &[ENV_KEYS[0], ENV_KEYS[1], ("AWS_ENDPOINT_URL_STS", &fake.url)]).unwrap();
    let message = refused(applied(&credential).await, &["env-secret"]);
    assert_eq!(
        message,
        format!(
            "AWS STS at {}/ answered 403: AccessDenied: User AKIDENV may not sts:AssumeRole with ***; check that the role arn:aws:iam::2:role/b exists and that its trust policy lets these credentials assume it",
            fake.url
        )
    );
}

#[tokio::test]
async fn roles_of_profiles() {
    let fake = Fake::with(|seen| sts_answer("AssumeRole", if seen.field("RoleArn").unwrap().ends_with("/b") { "ASIAB" } else { "ASIAA" })).await;
    let config = Temp::file(
        "[profile a]\nrole_arn=arn:aws:iam::1:role/a\nsource_profile=keys\n[profile b]\nrole_arn=arn:aws:iam::1:role/b\nsource_profile=a\n[profile keys]\naws_access_key_id=AKIDKEYS\naws_secret_access_key=s\n[profile own]\nrole_arn=arn:aws:iam::1:role/a\nsource_profile=own\naws_access_key_id=AKIDSELF\naws_secret_access_key=s\n[profile env]\nrole_arn=arn:aws:iam::1:role/b\ncredential_source=Environment\n",
    );
    for (profile, ids) in [("a", vec!["AKIDKEYS"]), ("b", vec!["AKIDKEYS", "ASIAA"]), ("own", vec!["AKIDSELF"]), ("env", vec!["AKIDENV"])] {
        let before = fake.seen().len();
        let env = [ENV_KEYS[0], ENV_KEYS[1], ("AWS_CONFIG_FILE", config.name()), ("AWS_ENDPOINT_URL_STS", &fake.url)];
        let credential = bedrock(&format!(r#"{{"aws":{{"profile":"{profile}"}}}}"#), &env).unwrap();
        applied(&credential).await.unwrap();
        let signers: Vec<_> = fake.seen()[before..].iter().map(|s| s.header("authorization").split(['=', '/']).nth(1).unwrap().to_owned()).collect();
        assert_eq!(signers, ids, "{profile}");
    }
}

#[test]
fn what_cannot_be_used_is_named() {
    let config = Temp::file(
        "[default]\nregion=us-east-1\n[profile sso]\nsso_session=x\n[profile process]\ncredential_process=/bin/x\n[profile half]\naws_access_key_id=AKID\n[profile mfa]\nrole_arn=r\nmfa_serial=m\nsource_profile=half\n[profile loop]\nrole_arn=r\nsource_profile=pool\n[profile pool]\nrole_arn=r\nsource_profile=loop\n[profile bare]\nrole_arn=r\n[profile gone]\nrole_arn=r\nsource_profile=nobody\n",
    );
    for (profile, says) in [
        ("sso", "SSO"),
        ("process", "`credential_process`, which is not supported"),
        ("half", "`aws_secret_access_key` is not: set both"),
        ("mfa", "mfa_serial"),
        ("loop", "leads back to itself"),
        ("bare", "no `source_profile`"),
        ("gone", "\"nobody\""),
        ("default", "has no credentials"),
        ("nowhere", "there is no AWS profile \"nowhere\" in"),
    ] {
        let message = refused(bedrock("{}", &[("AWS_PROFILE", profile), ("AWS_CONFIG_FILE", config.name())]), &[]);
        assert!(message.contains(says) && message.contains(profile), "{message}");
    }
    let message = refused(bedrock("{}", &[("AWS_CONFIG_FILE", config.name())]), &[]);
    assert!(message.starts_with("no AWS credentials: set `aws`"), "{message}");
    assert!(refused(bedrock("{}", &[ENV_KEYS[1]]), &["env-secret"]).contains("AWS_ACCESS_KEY_ID is not: set both"));
    assert!(refused(bedrock(r#"{"aws":{"access_key_id":"A","secret_access_key":"hid den"}}"#, &[]), &["hid den"]).contains("spaces, line ends"));
    let outside = || Outside { env: Env::of(&ENV_KEYS), clock: Clock::system(), http: http() };
    let message = refused(Credential::with(BEDROCK, &CredentialConfig::default(), None, outside()), &["env-secret"]);
    assert_eq!(message, "no AWS region: set `region` or AWS_REGION");
    assert!(refused(Credential::with(BEDROCK, &CredentialConfig::default(), Some("evil.example/"), outside()), &["env-secret"]).contains("is not an AWS region"));
}

#[tokio::test]
async fn a_request_without_a_host_cannot_be_signed() {
    let credential = bedrock("{}", &ENV_KEYS).unwrap();
    let mut parts = http::Request::post("/model/m/converse").body(()).unwrap().into_parts().0;
    assert!(refused(credential.apply(&mut parts, &body()).await, &["env-secret"]).contains("no scheme and host"));
}
