//! The browser part of `hawkgate demo`: the program itself, with its own provider and page.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::regex_escaped;
use crate::support::browser::{Browser, Page};

/// A running demo, which is killed when dropped.
struct Demo {
    child: Child,
    /// The URL that it prints, without the slash at its end.
    origin: String,
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Demo {
    fn start() -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_hawkgate"))
            .arg("demo")
            .stdout(Stdio::piped())
            .spawn();
        let mut demo = Self {
            child: child.unwrap(),
            origin: String::new(),
        };
        let stdout = BufReader::new(demo.child.stdout.take().unwrap());
        let printed: Vec<String> = stdout
            .lines()
            .map(Result::unwrap)
            .take_while(|line| !line.contains("Press Ctrl-C"))
            .collect();
        let url = printed.iter().find_map(|line| line.strip_prefix("  open "));
        url.unwrap()
            .trim_end_matches('/')
            .clone_into(&mut demo.origin);
        demo
    }

    /// A regular expression for exactly this URL.
    fn exactly(&self, target: &str) -> String {
        format!("^{}{target}$", regex_escaped(&self.origin))
    }

    /// Signs in at the form that the tab shows, and waits for the page's first call.
    async fn sign_in(&self, page: &Page<'_>, user: &str, password: &str) {
        page.wait_for_url("/authorize").await;
        page.fill("#username", user).await;
        page.fill("#password", password).await;
        page.press("Enter").await;
        page.wait_for_url(&self.exactly("/")).await;
        wait_for_status(page, "200 after").await;
    }
}

/// Waits until the page reports something that begins with `text`.
async fn wait_for_status(page: &Page<'_>, text: &str) {
    let script = "const status = document.getElementById('status');
        while (!status.textContent.startsWith(arg)) await new Promise(requestAnimationFrame);";
    page.evaluate(script, json!(text)).await;
}

/// The text of each fact and counter with this attribute, by its name.
async fn shown(page: &Page<'_>, attribute: &str) -> Value {
    let script =
        "return Object.fromEntries([...document.querySelectorAll(`[data-${arg}]`)].map((element) =>
        [element.dataset[arg], element.textContent]));";
    page.evaluate(script, json!(attribute)).await
}

#[tokio::test]
async fn the_page_shows_the_journey_of_a_call_and_a_healed_one() {
    let demo = Demo::start();
    let browser = Browser::start().await;
    let page = browser.page().await;
    page.goto(&demo.origin).await;
    page.wait_for_url("/authorize").await;
    page.assert_accessible().await;
    page.screenshots("demo-sign-in").await;
    demo.sign_in(&page, "alice", "tea-party").await;
    page.assert_accessible().await;
    page.screenshots("demo-page").await;

    let facts = shown(&page, "fact").await;
    for (name, expected) in [
        ("readable", "none"),
        ("user", "Alice Adams, alice@example.com"),
        ("audience", "hawkgate-demo"),
        ("client", "demo/alice"),
        ("cookie", "no"),
        ("bearer", "no"),
        ("status", "200"),
    ] {
        assert_eq!(facts[name], expected, "{name}: {facts}");
    }
    assert!(
        facts["authorization"]
            .as_str()
            .unwrap()
            .starts_with("Hawk id=\"demo/alice\"")
    );

    page.click("#heal").await;
    wait_for_status(&page, "Healed").await;
    page.assert_accessible().await;
    page.screenshots("demo-healed").await;
    let expected = json!({
        "calls": "2", "received": "3", "refused": "1", "seen": "0", "generations": "2",
    });
    assert_eq!(shown(&page, "count").await, expected);
    let received = page.received().await;
    assert!(
        received.iter().all(|response| response.status < 400),
        "{received:?}"
    );

    page.click("#omit").await;
    wait_for_status(&page, "hawkgate answered 401").await;
    page.screenshots("demo-refused").await;
}

#[tokio::test]
async fn two_users_are_compared_after_a_sign_out() {
    let demo = Demo::start();
    let browser = Browser::start().await;
    let page = browser.page().await;
    page.goto(&demo.origin).await;
    demo.sign_in(&page, "alice", "tea-party").await;
    page.click("#sign-out button").await;
    page.wait_for_url(&format!("^{}/oauth2/logout", regex_escaped(&demo.origin)))
        .await;
    let cookies = browser.cookies().await;
    assert!(cookies.is_empty(), "{cookies:?}");

    page.goto(&demo.origin).await;
    page.wait_for_url("/authorize").await;
    page.fill("#username", "bob").await;
    page.fill("#password", "tea-party").await;
    page.press("Enter").await;
    page.wait_for_url("/sign-in").await;
    assert!(
        page.text()
            .await
            .contains("The username or the password is wrong.")
    );
    page.fill("#password", "toolbox").await;
    page.press("Enter").await;
    page.wait_for_url(&demo.exactly("/")).await;
    wait_for_status(&page, "200 after").await;
    let script = "return document.querySelector('.compare').textContent";
    let compared = page.evaluate(script, Value::Null).await;
    let compared = compared.as_str().unwrap();
    assert!(
        compared.contains("demo/alice") && compared.contains("demo/bob"),
        "{compared}"
    );
    page.screenshots("demo-two-users").await;
}

#[tokio::test]
async fn a_page_whose_session_has_ended_leads_back_to_the_sign_in() {
    let demo = Demo::start();
    let browser = Browser::start().await;
    let page = browser.page().await;
    page.goto(&demo.origin).await;
    demo.sign_in(&page, "alice", "tea-party").await;
    browser.clear_all_cookies().await;
    page.click("#call").await;
    wait_for_status(&page, "You are signed out").await;
    page.click("#status a").await;
    demo.sign_in(&page, "bob", "toolbox").await;
}

#[tokio::test]
async fn a_cancelled_sign_in_can_be_tried_again() {
    let demo = Demo::start();
    let browser = Browser::start().await;
    let page = browser.page().await;
    page.goto(&demo.origin).await;
    page.wait_for_url("/authorize").await;
    page.click("button[value=cancel]").await;
    page.wait_for_url("/oauth2/callback").await;
    page.click("a[href*='/oauth2/login']").await;
    page.wait_for_url("/authorize").await;
}
