//! A headless Chromium for one test, and its tabs.
//!
//! Tests wait for conditions of the page. A test fails if a page reports an uncaught error or a
//! violation of its Content-Security-Policy.

use std::io::{BufRead as _, BufReader};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thirtyfour::prelude::*;
use thirtyfour::{BrowserLogEntry, ChromeCapabilities, LoggingPrefsLogLevel, WindowHandle};

/// Far more than anything takes; a test that waits this long has failed.
const DEADLINE: Duration = Duration::from_secs(60);
/// How often a condition is checked.
const LOOK: Duration = Duration::from_millis(20);

/// A browser with a profile of its own.
pub(crate) struct Browser {
    driver: WebDriver,
    first: std::sync::Mutex<Option<WindowHandle>>,
    /// Tabs take turns: the driver talks to one window at a time.
    turn: tokio::sync::Mutex<()>,
}

/// One window of a browser, with a `sessionStorage` of its own: one person.
pub(crate) struct Tab<'a> {
    browser: &'a Browser,
    window: WindowHandle,
}

struct Chromedriver(Child);

impl Drop for Chromedriver {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a test in a browser, then fails it if a page reported an error.
pub(crate) async fn story(telling: impl AsyncFnOnce(&Browser)) {
    story_with(&[], telling).await;
}

/// The same in a browser with more flags.
pub(crate) async fn story_with(flags: &[&str], telling: impl AsyncFnOnce(&Browser)) {
    let (reports, outcome) = watched(flags, telling).await;
    if let Err(panic) = outcome {
        println!("what the pages reported: {reports:#?}");
        resume_unwind(panic);
    }
    assert!(reports.is_empty(), "the pages reported {reports:#?}");
}

type Told = Result<(), Box<dyn std::any::Any + Send>>;

/// Runs a test in a browser. Returns the reports of its pages and how it ended.
pub(crate) async fn watched(
    flags: &[&str],
    telling: impl AsyncFnOnce(&Browser),
) -> (Vec<String>, Told) {
    // More browsers at once get in each other's way.
    static BROWSERS: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(3);
    let _one = BROWSERS.acquire().await.unwrap();
    let (_chromedriver, address) = chromedriver();
    let profile = tempfile::tempdir().unwrap();
    let driver = WebDriver::new(address, capabilities(flags, profile.path()))
        .await
        .unwrap();
    let browser = Browser {
        first: Some(driver.window().await.unwrap()).into(),
        driver,
        turn: tokio::sync::Mutex::default(),
    };
    let outcome = AssertUnwindSafe(telling(&browser)).catch_unwind().await;
    let log = browser.driver.browser_log().await;
    let reports = log.into_iter().flatten().filter(is_report);
    let reports = reports.map(|entry| entry.message).collect();
    browser.driver.quit().await.unwrap();
    (reports, outcome)
}

/// Only errors of scripts and policies count; an unreachable server or a 404 does not.
fn is_report(entry: &BrowserLogEntry) -> bool {
    entry.level == "SEVERE" && entry.source.as_deref() != Some("network")
}

/// Chromedriver picks a port that is free on IPv4 or IPv6, and gives up if the other is taken; then
/// it tries again.
fn chromedriver() -> (Chromedriver, String) {
    let program = std::env::var("CHROMEDRIVER").unwrap_or_else(|_| "chromedriver".to_owned());
    loop {
        let mut child = Command::new(&program)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program} does not start: {error}"));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = Vec::new();
        for line in lines.map_while(Result::ok) {
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                let address = format!("http://127.0.0.1:{}", port.trim_end_matches('.'));
                return (Chromedriver(child), address);
            }
            said.push(line);
        }
        child.wait().unwrap();
        let taken = said.iter().any(|line| line.contains("port not available"));
        assert!(taken, "{program} says no port: {said:?}");
    }
}

fn capabilities(flags: &[&str], profile: &std::path::Path) -> ChromeCapabilities {
    let mut capabilities = DesiredCapabilities::chrome();
    if let Ok(chrome) = std::env::var("CHROME") {
        capabilities.set_binary(&chrome).unwrap();
    }
    let profile = format!("--user-data-dir={}", profile.display());
    let fixed = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--force-color-profile=srgb",
        "--lang=en-US",
        // The pointer could miss a moving element.
        "--force-prefers-reduced-motion",
        // Pretends to have a mouse. Without one the box does not take the focus after a click, so
        // that no keyboard pops up.
        "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4",
        "--window-size=1280,800",
        &profile,
    ];
    for flag in fixed.iter().chain(flags) {
        capabilities.add_arg(flag).unwrap();
    }
    capabilities
        .set_browser_log_level(LoggingPrefsLogLevel::All)
        .unwrap();
    capabilities
}

impl Browser {
    /// A new, empty window.
    pub(crate) async fn window(&self) -> Tab<'_> {
        let _turn = self.turn.lock().await;
        let first = self.first.lock().unwrap().take();
        let window = match first {
            Some(window) => window,
            None => self.driver.new_window().await.unwrap(),
        };
        Tab {
            browser: self,
            window,
        }
    }

    /// A new window at an address.
    pub(crate) async fn open(&self, url: &str) -> Tab<'_> {
        let tab = self.window().await;
        tab.goto(url).await;
        tab
    }

    /// A new window in the chat, once it is somebody.
    pub(crate) async fn person(&self, url: &str) -> Tab<'_> {
        let tab = self.open(url).await;
        tab.is_somebody().await;
        tab
    }

    /// New windows in the chat, one after the other: one person each.
    pub(crate) async fn people<const N: usize>(&self, url: &str) -> [Tab<'_>; N] {
        let mut tabs = Vec::new();
        for _ in 0..N {
            tabs.push(self.person(url).await);
        }
        tabs.try_into().unwrap_or_else(|_| unreachable!())
    }

    /// The window that a page of this browser has opened itself.
    pub(crate) async fn opened_beside(&self, known: &[&Tab<'_>]) -> Tab<'_> {
        let began = Instant::now();
        loop {
            let windows = self.driver.windows().await.unwrap();
            let other = |window: &WindowHandle| known.iter().all(|tab| tab.window != *window);
            if let Some(window) = windows.into_iter().find(other) {
                return Tab {
                    browser: self,
                    window,
                };
            }
            assert!(began.elapsed() < DEADLINE, "no other window was opened");
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Tab<'_> {
    /// The driver, switched to this window while the guard is held.
    async fn turn(&self) -> (&WebDriver, tokio::sync::MutexGuard<'_, ()>) {
        let guard = self.browser.turn.lock().await;
        let driver = &self.browser.driver;
        driver.switch_to_window(self.window.clone()).await.unwrap();
        (driver, guard)
    }

    pub(crate) async fn goto(&self, url: &str) {
        let (driver, _turn) = self.turn().await;
        driver.goto(url).await.unwrap();
    }

    pub(crate) async fn reload(&self) {
        let (driver, _turn) = self.turn().await;
        driver.refresh().await.unwrap();
    }

    pub(crate) async fn back(&self) {
        let (driver, _turn) = self.turn().await;
        driver.back().await.unwrap();
    }

    pub(crate) async fn forward(&self) {
        let (driver, _turn) = self.turn().await;
        driver.forward().await.unwrap();
    }

    pub(crate) async fn close(self) {
        let (driver, _turn) = self.turn().await;
        driver.close_window().await.unwrap();
    }

    /// A command of the DevTools protocol.
    pub(crate) async fn devtools(&self, method: &str, parameters: Value) -> Value {
        let (driver, _turn) = self.turn().await;
        driver.cdp().send_raw(method, parameters).await.unwrap()
    }

    /// The value of an expression in the page.
    pub(crate) async fn get<T: DeserializeOwned>(&self, expression: &str) -> T {
        let (driver, _turn) = self.turn().await;
        let answer = driver
            .execute(format!("return ({expression})"), vec![])
            .await;
        let value = answer.unwrap_or_else(|error| panic!("{expression}: {error}"));
        serde_json::from_value(value.json().clone())
            .unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    /// Runs a script in the page.
    pub(crate) async fn run(&self, script: &str) {
        let (driver, _turn) = self.turn().await;
        let done = driver.execute(script.to_owned(), vec![]).await;
        done.unwrap_or_else(|error| panic!("{script}: {error}"));
    }

    /// Waits until an expression is true in the page.
    pub(crate) async fn until(&self, expression: &str) {
        let began = Instant::now();
        while !self.get::<bool>(&format!("!!({expression})")).await {
            if began.elapsed() > DEADLINE {
                let page: String = self.get("document.documentElement.outerHTML").await;
                panic!("never came true: {expression}\n{page}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until such an element is visible.
    pub(crate) async fn sees(&self, selector: &str) {
        self.until(&visible(selector)).await;
    }

    /// Waits until no such element is visible.
    pub(crate) async fn sees_no(&self, selector: &str) {
        self.until(&format!("!({})", visible(selector))).await;
    }

    /// Whether such an element is visible.
    pub(crate) async fn shows(&self, selector: &str) -> bool {
        self.get(&visible(selector)).await
    }

    /// The text of the first such element.
    pub(crate) async fn text(&self, selector: &str) -> String {
        let expression = format!(
            "document.querySelector({}).textContent.trim()",
            json!(selector)
        );
        self.get(&expression).await
    }

    /// Clicks in the middle of an element, like a hand.
    pub(crate) async fn click(&self, selector: &str) {
        self.sees(selector).await;
        let (driver, _turn) = self.turn().await;
        let element = driver.find(By::Css(selector)).await.unwrap();
        let clicked = element.click().await;
        clicked.unwrap_or_else(|error| panic!("{selector}: {error}"));
    }

    /// Moves the pointer to the middle of an element.
    pub(crate) async fn hovers(&self, selector: &str) {
        let (driver, _turn) = self.turn().await;
        let element = driver.find(By::Css(selector)).await.unwrap();
        let moved = driver.action_chain().move_to_element_center(&element);
        moved.perform().await.unwrap();
    }

    /// Double-clicks in the middle of an element.
    pub(crate) async fn double_clicks(&self, selector: &str) {
        self.sees(selector).await;
        let (driver, _turn) = self.turn().await;
        let element = driver.find(By::Css(selector)).await.unwrap();
        let clicked = driver.action_chain().double_click_element(&element);
        clicked.perform().await.unwrap();
    }

    /// Clicks while a key is held.
    pub(crate) async fn click_with(&self, key: Key, selector: &str) {
        let (driver, _turn) = self.turn().await;
        let element = driver.find(By::Css(selector)).await.unwrap();
        let held = driver.action_chain().key_down(key.clone());
        held.click_element(&element)
            .key_up(key)
            .perform()
            .await
            .unwrap();
    }

    /// Types into whatever has the focus.
    pub(crate) async fn types(&self, keys: &str) {
        let (driver, _turn) = self.turn().await;
        let keys = driver
            .action_chain_with_delay(Some(Duration::ZERO), Some(Duration::ZERO))
            .send_keys(keys.to_owned());
        keys.perform().await.unwrap();
    }

    pub(crate) async fn presses(&self, key: Key) {
        let (driver, _turn) = self.turn().await;
        let chain = driver.action_chain_with_delay(Some(Duration::ZERO), Some(Duration::ZERO));
        let pressed = chain.key_down(key.clone()).key_up(key);
        pressed.perform().await.unwrap();
    }

    pub(crate) async fn presses_with(&self, held: Key, key: impl Into<char>) {
        let key = key.into();
        let (driver, _turn) = self.turn().await;
        let chain = driver.action_chain_with_delay(Some(Duration::ZERO), Some(Duration::ZERO));
        let down = chain.key_down(held.clone()).key_down(key);
        down.key_up(key).key_up(held).perform().await.unwrap();
    }

    pub(crate) async fn screenshot(&self, path: &std::path::Path) {
        let (driver, _turn) = self.turn().await;
        driver.screenshot(path).await.unwrap();
    }

    /// Gives the page this size, whatever the size of the window.
    pub(crate) async fn sized(&self, width: u32, height: u32) {
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)
            .await;
    }

    // --- in the chat -------------------------------------------------------------------------

    /// Waits until the server has pushed who this is.
    pub(crate) async fn is_somebody(&self) {
        let me = "document.documentElement.dataset.connected === 'true' \
                  && document.querySelector('#logged-user [data-user]')";
        self.until(me).await;
    }

    /// My user name.
    pub(crate) async fn name(&self) -> String {
        self.is_somebody().await;
        self.get("document.querySelector('#logged-user [data-user]').dataset.user")
            .await
    }

    /// The path in the address bar.
    pub(crate) async fn path(&self) -> String {
        self.get("location.pathname").await
    }

    /// Types into the box; a line break is Shift+Enter.
    pub(crate) async fn writes(&self, text: &str) {
        self.run("document.querySelector('#message-text').focus()")
            .await;
        for (number, line) in text.split('\n').enumerate() {
            if number > 0 {
                self.presses_with(Key::Shift, Key::Enter).await;
            }
            if !line.is_empty() {
                self.types(line).await;
            }
        }
    }

    /// Writes and sends, without waiting.
    pub(crate) async fn sends(&self, text: &str) {
        self.writes(text).await;
        self.presses(Key::Enter).await;
    }

    /// Writes, sends, and waits until the message is settled.
    pub(crate) async fn says(&self, text: &str) {
        self.sends(text).await;
        self.hears(text).await;
        self.is_settled().await;
    }

    /// Waits until nothing is pending.
    pub(crate) async fn is_settled(&self) {
        self.until("document.documentElement.dataset.pending === '0'")
            .await;
    }

    /// The text in the box.
    pub(crate) async fn written(&self) -> String {
        self.get("document.querySelector('#message-text').value")
            .await
    }

    /// Waits until a message with that text is in the list.
    pub(crate) async fn hears(&self, text: &str) {
        self.until(&format!("{TEXTS}.includes({})", json!(text)))
            .await;
    }

    /// The texts in the list.
    pub(crate) async fn texts(&self) -> Vec<String> {
        self.get(TEXTS).await
    }

    /// Waits until a room is on show: heading, list, address and title.
    pub(crate) async fn is_in(&self, title: &str, path: &str) {
        let here = format!(
            "document.querySelector('#group-name').textContent.trim() === {title} \
             && location.pathname === {path} && document.querySelector('#messages-list').dataset.room \
             && !document.querySelector('#message-text').disabled \
             && document.title.endsWith({title} + ' · Overwire') \
             && document.querySelector('#group-name [data-address]').dataset.address === {path}",
            title = json!(title),
            path = json!(path),
        );
        self.until(&here).await;
    }

    /// Waits until the page shows all groups.
    pub(crate) async fn is_in_the_lobby(&self) {
        self.until(
            "location.pathname === '/chat/' && document.title === 'All groups · Overwire' \
             && document.querySelector('#lobby-rooms [data-group]')",
        )
        .await;
    }

    /// Enters a group by its link.
    pub(crate) async fn enters(&self, group: &str) {
        self.click(&format!("#groups-list [data-group-name='{group}']"))
            .await;
        self.is_in(&format!("#{group}"), &format!("/chat/{group}/"))
            .await;
    }

    /// Enters the private room with a listed person.
    pub(crate) async fn meets(&self, name: &str) {
        let lists = ["mine", "online"].map(|list| format!("#users-{list} [data-user='{name}'] a"));
        let [mine, online] = &lists;
        self.until(&format!("({}) || ({})", visible(mine), visible(online)))
            .await;
        let listed = if self.shows(mine).await { mine } else { online };
        self.click(listed).await;
        self.is_in(name, &format!("/chat/@{name}/")).await;
    }
}

/// The texts of the messages in the list, as an expression.
pub(crate) const TEXTS: &str = "[...document.querySelectorAll('#messages-list :is(.message > p, .message__text)')].map((p) => p.textContent)";

/// Whether such an element is visible, as an expression.
pub(crate) fn visible(selector: &str) -> String {
    format!(
        "[...document.querySelectorAll({})].some((one) => \
         one.checkVisibility({{ visibilityProperty: true, opacityProperty: true }}))",
        json!(selector)
    )
}
