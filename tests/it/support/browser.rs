//! Chromium, driven through `tests/peers/browser.js`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::peers::Peer;

/// Screens for which pages are made: a phone and a desktop, light and dark.
pub(crate) const SCREENS: [(&str, u32, u32, &str); 4] = [
    ("phone-light", 360, 800, "light"),
    ("phone-dark", 360, 800, "dark"),
    ("desktop-light", 1280, 800, "light"),
    ("desktop-dark", 1280, 800, "dark"),
];

/// A profile without cookies. Names that end in `.test` resolve to loopback; any certificate is
/// accepted.
pub(crate) struct Browser(Peer);

/// A tab.
pub(crate) struct Page<'a> {
    browser: &'a Browser,
    id: u64,
}

/// What a navigation led to.
#[derive(Debug)]
pub(crate) struct Navigation {
    /// The status of the last response; 0 if there was none.
    pub(crate) status: u64,
    /// Names in lower case.
    pub(crate) headers: Value,
    pub(crate) url: String,
}

/// A response that a page received.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) status: u64,
}

impl Browser {
    pub(crate) async fn start() -> Self {
        Self(Peer::start("browser", &json!({})).await)
    }

    /// Opens a tab.
    pub(crate) async fn page(&self) -> Page<'_> {
        let id = self.0.control("open", json!({})).await["page"].as_u64();
        Page {
            browser: self,
            id: id.unwrap(),
        }
    }

    /// Every cookie of the profile, as playwright describes them: `name`, `value`, `domain`, `path`,
    /// `expires`, `httpOnly`, `secure`, `sameSite`.
    pub(crate) async fn cookies(&self) -> Vec<Value> {
        let response = self.0.control("cookies", json!({})).await;
        response["cookies"].as_array().unwrap().clone()
    }

    /// Forgets every cookie.
    pub(crate) async fn clear_cookies(&self) {
        self.0.control("clearCookies", json!({})).await;
    }

    /// Forgets the cookies of a name.
    pub(crate) async fn remove_cookie(&self, name: &str) {
        self.0
            .control("clearCookies", json!({ "name": name }))
            .await;
    }

    /// Forgets all cookies, the provider's too.
    pub(crate) async fn clear_all_cookies(&self) {
        self.0.control("clearCookies", json!({})).await;
    }

    /// Adds cookies, described in the same way.
    pub(crate) async fn set_cookies(&self, cookies: Value) {
        self.0
            .control("setCookies", json!({ "cookies": cookies }))
            .await;
    }
}

impl Page<'_> {
    async fn control(&self, command: &str, mut parameters: Value) -> Value {
        parameters["page"] = self.id.into();
        self.browser.0.control(command, parameters).await
    }

    /// Navigates as if the user had typed the URL, and waits until the page is loaded.
    pub(crate) async fn goto(&self, url: &str) -> Navigation {
        let response = self.control("goto", json!({ "url": url })).await;
        Navigation {
            status: response["status"].as_u64().unwrap_or(0),
            headers: response["headers"].clone(),
            url: response["url"].as_str().unwrap().to_owned(),
        }
    }

    /// Waits until the URL matches a regular expression.
    pub(crate) async fn wait_for_url(&self, expression: &str) {
        self.control("waitFor", json!({ "url": expression })).await;
    }

    pub(crate) async fn click(&self, selector: &str) {
        self.control("click", json!({ "selector": selector })).await;
    }

    pub(crate) async fn fill(&self, selector: &str, value: &str) {
        let parameters = json!({ "selector": selector, "value": value });
        self.control("fill", parameters).await;
    }

    /// Presses a key, such as `Tab` or `Enter`.
    pub(crate) async fn press(&self, key: &str) {
        self.control("press", json!({ "key": key })).await;
    }

    /// Runs the body of an async function with the parameter `arg`; returns what it returns.
    pub(crate) async fn evaluate(&self, script: &str, arg: Value) -> Value {
        let parameters = json!({ "script": script, "arg": arg });
        self.control("evaluate", parameters).await["value"].clone()
    }

    /// `fetch(url, init)` in the page. Returns `status`, `body` and those of the response's fields
    /// that the page may read; or `error` if the browser refused.
    pub(crate) async fn fetch(&self, url: &str, init: Value) -> Value {
        let script = "try {
            const response = await fetch(arg.url, arg.init);
            const headers = Object.fromEntries(response.headers);
            return { status: response.status, type: response.type, url: response.url, headers, body: await response.text() };
        } catch (error) { return { error: error.name }; }";
        self.evaluate(script, json!({ "url": url, "init": init }))
            .await
    }

    async fn state(&self) -> Value {
        self.control("state", json!({})).await
    }

    pub(crate) async fn url(&self) -> String {
        self.state().await["url"].as_str().unwrap().to_owned()
    }

    /// The visible text.
    pub(crate) async fn text(&self) -> String {
        self.state().await["text"].as_str().unwrap().to_owned()
    }

    /// What the page, and the browser about the page, wrote to the console, such as
    /// `error: Refused to …`.
    pub(crate) async fn console(&self) -> Vec<String> {
        let state = self.state().await;
        let lines = state["console"].as_array().unwrap().iter();
        lines.map(|l| l.as_str().unwrap().to_owned()).collect()
    }

    /// The errors on the console, such as those about a content security policy; without the
    /// browser's notes about responses with an error status.
    pub(crate) async fn problems(&self) -> Vec<String> {
        let mut lines = self.console().await;
        lines.retain(|l| l.starts_with("error:") && !l.contains("Failed to load resource"));
        lines
    }

    /// Every response so far, redirects included.
    pub(crate) async fn received(&self) -> Vec<Received> {
        let response = self.control("requests", json!({})).await;
        let requests = response["requests"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        requests
            .map(|request| Received {
                method: text(&request["method"]),
                url: text(&request["url"]),
                status: request["status"].as_u64().unwrap(),
            })
            .collect()
    }

    /// The width and height in CSS pixels, and `light` or `dark`, from now on.
    pub(crate) async fn media(&self, width: u32, height: u32, scheme: &str) {
        let parameters = json!({ "width": width, "height": height, "scheme": scheme });
        self.control("media", parameters).await;
    }

    /// Takes a screenshot on each of [`SCREENS`]: `target/browser/<name>-phone-light.png` and so on.
    /// Fails if the page does not fit into the width.
    pub(crate) async fn screenshots(&self, name: &str) {
        for (screen, width, height, scheme) in SCREENS {
            self.media(width, height, scheme).await;
            let path = screenshot(&format!("{name}-{screen}.png"));
            self.control("screenshot", json!({ "path": path })).await;
            let script = "return document.documentElement.scrollWidth - innerWidth";
            let excess = self.evaluate(script, Value::Null).await;
            assert!(
                excess.as_i64().unwrap() <= 0,
                "{name} is {excess} pixels wider than {screen}"
            );
        }
    }

    /// Asserts what every page of hawkgate's own has: a language, a title, one `h1`, a name for each
    /// control, text with enough contrast, light and dark; and that it caused no message on the
    /// console, which a blocked resource does.
    pub(crate) async fn assert_accessible(&self) {
        for (screen, width, height, scheme) in SCREENS {
            self.media(width, height, scheme).await;
            let problems = self.evaluate(ACCESSIBILITY, Value::Null).await;
            assert_eq!(problems, json!([]), "on {screen}: {}", self.url().await);
        }
        assert_eq!(self.problems().await, Vec::<String>::new());
    }

    pub(crate) async fn close(self) {
        self.control("close", json!({})).await;
    }
}

/// Returns the problems of a page. Contrast as in WCAG 2.2, 1.4.3: at least 4.5, or 3 for large text.
const ACCESSIBILITY: &str = r"
const problems = [];
if (!document.documentElement.lang) problems.push('no lang');
if (!document.title) problems.push('no title');
if (document.querySelectorAll('h1').length !== 1) problems.push('not one h1');
for (const control of document.querySelectorAll('button, input:not([type=hidden]), select, textarea, a[href]')) {
  const name = control.innerText || control.value || control.getAttribute('aria-label') ||
    [...(control.labels ?? [])].map((label) => label.innerText).join('');
  if (!name?.trim()) problems.push(`no name: ${control.outerHTML}`);
}
const parse = (color) => {
  const [r, g, b, a = 1] = color.match(/[\d.]+/g).map(Number);
  return { rgb: [r, g, b], a };
};
const luminance = (rgb) => {
  const [r, g, b] = rgb.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const background = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const { rgb, a } = parse(getComputedStyle(at).backgroundColor);
    if (a > 0) return rgb;
  }
  // The canvas, which `color-scheme: dark` makes dark.
  const probe = document.createElement('div');
  probe.style.cssText = 'background: Canvas; position: absolute';
  document.body.append(probe);
  const { rgb } = parse(getComputedStyle(probe).backgroundColor);
  probe.remove();
  return rgb;
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node = walker.nextNode(); node; node = walker.nextNode()) {
  const element = node.parentElement;
  if (!node.data.trim() || ['SCRIPT', 'STYLE', 'TEMPLATE'].includes(element.tagName) || !element.checkVisibility()) continue;
  const style = getComputedStyle(element);
  const [low, high] = [luminance(parse(style.color).rgb), luminance(background(element))].sort((a, b) => a - b);
  const contrast = (high + 0.05) / (low + 0.05);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  if (contrast < (large ? 3 : 4.5)) problems.push(`contrast ${contrast.toFixed(2)}: ${node.data.trim().slice(0, 40)}`);
}
return [...new Set(problems)];
";

/// A file among the artefacts of the browser tests.
fn screenshot(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("browser");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}
