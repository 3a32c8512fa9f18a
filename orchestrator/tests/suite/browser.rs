//! A job's page in a real browser: the log grows without a reload, permalinks point, and nothing is
//! asked of another host.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Instant,
};

use fantoccini::{Client, ClientBuilder, Locator};

use crate::support::{self, Machines, World, port::Port};

/// chromedriver on a free port; it ends with the value.
struct Driver {
    process: Child,
    port: Port,
    profile: tempfile::TempDir,
}

impl Driver {
    #[allow(clippy::disallowed_methods, reason = "tests start the browser as a person would")]
    fn start() -> Option<Self> {
        let port = Port::reserve();
        let process = Command::new("chromedriver")
            .arg(format!("--port={}", port.number()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(process) = process else {
            support::prerequisites::skip("chromedriver is not installed");
            return None;
        };
        Some(Self {
            process,
            port,
            profile: tempfile::tempdir().expect("a profile"),
        })
    }

    async fn browser(&self, script: bool) -> Client {
        let mut arguments: Vec<String> = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.push(format!(
            "--user-data-dir={}",
            self.profile
                .path()
                .join(if script { "with" } else { "without" })
                .display()
        ));
        let content = if script { 1 } else { 2 };
        let capabilities = serde_json::json!({
            "goog:chromeOptions": {"args": arguments, "prefs": {"profile.managed_default_content_settings.javascript": content}}
        });
        let started = Instant::now();
        loop {
            let connector = hyper_util::client::legacy::connect::HttpConnector::new();
            let mut builder = ClientBuilder::new(connector);
            builder.capabilities(capabilities.as_object().expect("an object").clone());
            match builder
                .connect(&format!("http://127.0.0.1:{}", self.port.number()))
                .await
            {
                Ok(client) => return client,
                Err(error) => assert!(started.elapsed() < support::deadline::GUEST, "no browser: {error}"),
            }
            support::pause();
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Waits until the page's text holds this, in an open step or a folded one.
async fn wait_text(client: &Client, wanted: &str) {
    let started = Instant::now();
    loop {
        let text = client
            .execute("return document.body ? document.body.textContent : ''", vec![])
            .await
            .unwrap_or_default();
        let text = text.as_str().unwrap_or_default();
        if text.contains(wanted) {
            return;
        }
        assert!(
            started.elapsed() < support::deadline::GUEST,
            "`{wanted}` never came; the page says:\n{text}"
        );
        support::pause();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_grows_on_an_open_page_and_the_page_is_complete_without_script() {
    let Some(driver) = Driver::start() else { return };
    let world = World::start(Machines::Process).await;
    let flag = world.dir.path().join("go-on");
    let workflow = format!(
        "name: ci\non: push\njobs:\n  job:\n    steps:\n      - name: Talk\n        run: |\n          echo first line\n          until test -e {}; do sleep 0.05; done\n          echo second line\n          echo '<img src=x onerror=alert(1)>'\n",
        flag.display()
    );
    let sha = world.push(&workflow).await;
    let job = world.wait_job(&sha, "job", "active");
    let page = format!("{}/jobs/{}", world.url(), job["id"].as_str().expect("an id"));

    let browser = driver.browser(true).await;
    browser.goto(&page).await.expect("the page");
    wait_text(&browser, "first line").await;
    browser
        .execute("window.sameDocument = true", vec![])
        .await
        .expect("a mark");
    fs::write(&flag, "").expect("the job goes on");
    wait_text(&browser, "second line").await;
    wait_text(&browser, "passed").await;
    let same = browser
        .execute("return window.sameDocument === true", vec![])
        .await
        .expect("an answer");
    assert_eq!(same, true, "the lines came without a reload");
    let foreign = browser
        .execute(
            "return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith(location.origin))",
            vec![],
        )
        .await
        .expect("an answer");
    assert_eq!(foreign, serde_json::json!([]), "nothing is asked of another host");
    let images = browser.find_all(Locator::Css("#log img")).await.expect("a search");
    assert!(images.is_empty(), "a log line became an element");

    browser.goto(&format!("{page}#s1-L2")).await.expect("the permalink");
    let target = browser
        .wait()
        .at_most(support::deadline::GUEST)
        .for_element(Locator::Css("#s1-L2"))
        .await
        .expect("the line");
    let text = target.prop("textContent").await.expect("its text").unwrap_or_default();
    assert!(text.contains("first line"), "{text}");
    browser.close().await.ok();

    let plain = driver.browser(false).await;
    plain.goto(&page).await.expect("the page");
    let source = plain.source().await.expect("its source");
    assert!(
        source.contains("second line") && source.contains("log.txt"),
        "complete without script: {source}"
    );
    plain.close().await.ok();
}

/// What the audit log says of logins, in order.
async fn logins(world: &World) -> Vec<(String, String)> {
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(world.data().join("helios-ci.db"))
        .read_only(true);
    let mut database = sqlx::ConnectOptions::connect(&options).await.expect("the database");
    sqlx::query_as("SELECT action, subject FROM audit WHERE action LIKE 'login%' ORDER BY seq")
        .fetch_all(&mut database)
        .await
        .expect("the audit log")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_link_logs_one_browser_in_when_the_person_says_so() {
    let Some(driver) = Driver::start() else { return };
    let world = World::start(Machines::Process).await;
    let made = world.cli(&["login-link"]);
    let link = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    let code = link.split_once("/login#").expect("a code behind #").1.to_owned();
    assert!(link.starts_with(&world.url()), "{link}");

    let browser = driver.browser(true).await;
    browser.goto(&link).await.expect("the page");
    assert_eq!(logins(&world).await.len(), 1, "the link itself does nothing");
    let here = browser.current_url().await.expect("an address");
    assert!(
        !here.as_str().contains(&code),
        "the code is not left in the address: {here}"
    );
    let button = browser.find(Locator::Css("form .primary")).await.expect("a button");
    button.click().await.expect("a click");
    wait_text(&browser, "Log out").await;
    let audit = logins(&world).await;
    let acts: Vec<&str> = audit.iter().map(|(action, _)| action.as_str()).collect();
    assert_eq!(acts, ["login_link.create", "login.link"]);
    assert_eq!(audit[0].1, audit[1].1, "both name the same row");

    // Whoever finds the link later gets nothing by it.
    browser.goto(&link).await.expect("the page");
    let button = browser.find(Locator::Css("form .primary")).await.expect("a button");
    button.click().await.expect("a click");
    wait_text(&browser, "works once").await;
    browser.close().await.ok();

    // Without a script the page says where the code is.
    let plain = driver.browser(false).await;
    plain.goto(&link).await.expect("the page");
    let source = plain.source().await.expect("its source");
    assert!(source.contains("what stands behind its"), "{source}");
    plain.close().await.ok();
}
