//! How much memory callers can make the caches take.

use serde_json::{Value, json};

use hawkgate::clock::SystemClock;
use hawkgate::proxy::settings::Address;

use crate::support::client::{Client, Request};
use crate::support::program::HomeDir;
use crate::support::tokens::{IssuerServer, SHARED, claims, with};

const MIB: u64 = 1 << 20;

/// Claims that take much more memory than their text.
fn shapes() -> [Value; 3] {
    let names: serde_json::Map<_, _> = (0..300).map(|at| (at.to_string(), json!(0))).collect();
    [
        json!({ "x": vec![0; 2500] }),
        json!({ "x": vec![json!({ "": 0 }); 700] }),
        json!({ "x": names }),
    ]
}

/// A verified caller with any number of tokens takes no more than `cache.max_bytes`, and the
/// estimate of what an entry takes is right within a quarter.
#[tokio::test]
async fn verified_tokens_take_no_more_memory_than_configured() {
    let issuer = IssuerServer::start(&[&SHARED[3]]).await;
    let now = SystemClock::shared().now().as_secs();
    for shape in shapes() {
        let home = HomeDir::new();
        let config = format!(
            r#"
[server]
listen = ["127.0.0.1:0"]
[[issuer]]
name = "idp"
kind = "oidc"
url = "{}"
audiences = ["api"]
[[route]]
name = "api"
upstream = "http://127.0.0.1:9"
issuers = ["idp"]
require_scopes = ["never-granted"]
[cache]
max_bytes = "32MiB"
[log]
format = "text"
access_sample = 0.0
"#,
            issuer.issuer()
        );
        let path = home.write("hawkgate.toml", &config);
        let mut program = home.start(&["run", "--config", path.to_str().unwrap()]);
        let line = program.wait_for_line("listening for callers").await;
        let address = line.rsplit("address=").next().unwrap().trim_matches('"');
        let address = Address::Tcp(address.parse().unwrap());
        let send = async |tokens: usize, shape: &Value| {
            for number in 0..tokens {
                let own = with(&claims(&issuer.issuer(), "api", now), shape);
                let own = with(&own, &json!({ "jti": number.to_string() }));
                let token = SHARED[3].token("EdDSA", &own);
                let request = Request::get("/").bearer(&token);
                // A connection on which nothing was admitted is closed early.
                let mut client = Client::connect(&address).await;
                let response = client.request(&request).await.unwrap();
                assert_eq!(
                    response.status_and_reason(),
                    (403, Some("insufficient_scope"))
                );
            }
        };
        send(20, &json!({})).await;
        let before = program.resident_memory();
        send(1500, &shape).await;
        let grown = program.resident_memory() - before;
        let text = &shape.to_string()[..20];
        assert!(grown < 40 * MIB, "{} MiB: {text}", grown / MIB);
        assert!(grown > 24 * MIB, "{} MiB: {text}", grown / MIB);
        program.kill_now().await;
    }
}
