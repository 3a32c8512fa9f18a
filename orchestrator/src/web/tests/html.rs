//! Pages: nothing foreign becomes markup, everything is there without a script, and colours can be
//! read.

use axum::http::{Method, StatusCode};

use super::fixture::{EVIL, Site, broken, trigger};
use crate::{model::state::StepState, store::AttemptEnd, web::pages::assets::STYLE};

/// The elements our templates write. Anything else came from somebody else.
const OURS: &[&str] = &[
    "html", "head", "meta", "title", "link", "script", "noscript", "body", "a", "header", "img", "nav", "span", "form",
    "input", "button", "main", "p", "div", "h1", "h2", "ul", "li", "ol", "b", "i", "code", "time", "section", "pre",
    "details", "summary", "label", "strong", "kbd", "br", "em", "!doctype",
];

/// A rough reading of a page: every `<` begins an element of ours, scripts and images are our files,
/// and no element carries a handler or a style.
fn check(path: &str, page: &str) {
    for tag in page.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap();
        let name = tag
            .trim_start_matches('/')
            .split([' ', '\n'])
            .next()
            .unwrap()
            .to_ascii_lowercase();
        assert!(OURS.contains(&name.as_str()), "{path}: <{tag}>");
        for bad in [" onerror", " onclick", " onload", " style=", "javascript:"] {
            assert!(!tag.contains(bad), "{path}: <{tag}>");
        }
        if name == "script" && !tag.starts_with('/') {
            assert!(tag.starts_with("script src=\"/static/app."), "{path}: <{tag}>");
        }
        if name == "img" {
            assert!(tag.starts_with("img src=\"/static/icon."), "{path}: <{tag}>");
        }
        if let Some(rest) = tag.split("src=\"").nth(1).or(tag.split(" href=\"").nth(1)) {
            assert!(rest.starts_with(['/', '#']), "{path}: a link leads away: <{tag}>");
        }
    }
}

#[tokio::test]
async fn hostile_text_stays_text_on_every_page() {
    let site = Site::new().await;
    let (_, job) = site.failed_job(40).await;
    let bad = broken(&site.store, &trigger("helios/demo", 1, EVIL)).await;
    let evil_query = "%3Cimg%20src=x%20onerror=alert(1)%3E";
    let paths = [
        "/".to_owned(),
        "/?repository=helios/demo".to_owned(),
        format!("/?repository={evil_query}"),
        format!("/?before={evil_query}"),
        "/deliveries".to_owned(),
        format!("/deliveries?repository={evil_query}"),
        format!("/runs/{}", site.public.run),
        format!("/runs/{}", bad.run),
        format!("/runs/{evil_query}"),
        format!("/jobs/{job}"),
        format!("/jobs/{job}?lines={evil_query}"),
        format!("/jobs/{job}?try={evil_query}"),
        format!("/jobs/{job}/log?from=1&n=20"),
        format!("/login?return_to=/{evil_query}"),
        format!("/{evil_query}"),
        "/status".to_owned(),
    ];
    for path in &paths {
        let page = site.get(path).await;
        check(path, &page.body);
    }
    let page = site.get(&paths[7]).await.body;
    assert!(
        page.contains("&#60;img") || page.contains("&lt;img"),
        "the text itself is shown"
    );
}

#[tokio::test]
async fn a_broken_workflow_file_is_shown_with_its_place() {
    let site = Site::new().await;
    let bad = broken(&site.store, &trigger("helios/demo", 1, "broken")).await;
    let page = site.get(&format!("/runs/{}", bad.run)).await.body;
    assert!(
        page.contains(".helios/workflows/ci.yml:2:7") && page.contains("did you mean"),
        "{page}"
    );
    assert!(page.contains("x here"), "the line itself is marked");
}

#[tokio::test]
async fn pages_are_whole_without_a_script() {
    let site = Site::new().await;
    let (_, job) = site.failed_job(7).await;
    let page = site.get(&format!("/jobs/{job}")).await.body;
    for part in [
        "id=\"s1-L1\"",
        "id=\"s2-L7\"",
        "Checking out 3f786850e3",
        "Process ended with exit code 2",
        "log.txt",
        "lines=s1-L1#s1-L1",
        "exit code 2",
    ] {
        assert!(page.contains(part), "{part} is missing");
    }
    assert!(!page.contains("http-equiv"), "an ended job stands still");
    assert!(page.contains("data-state=\"bad\" open"), "the failed step is open");
    let run = site.get(&format!("/runs/{}", site.public.run)).await.body;
    assert!(
        run.contains("skipped") && run.contains("failed"),
        "words, not colours alone"
    );
    assert!(
        run.contains("<noscript><meta http-equiv=\"refresh\""),
        "one job is still queued"
    );
    assert!(run.contains("of its kind"), "and the page says why");
    let waiting = site.get(&format!("/jobs/{}", site.public.jobs[2])).await.body;
    assert!(waiting.contains("queued for") && waiting.contains("<noscript><meta http-equiv=\"refresh\""));
}

#[tokio::test]
async fn infrastructure_failures_are_told_apart() {
    let site = Site::new().await;
    let (attempt, epoch, job) = site.claim().await;
    site.step(attempt, epoch, 0, "Check out", StepState::Running).await;
    let end = AttemptEnd::Infra {
        cause: "the machine stopped answering".into(),
    };
    site.store.end_attempt(attempt, epoch, end, 3).await.unwrap();
    let (again, epoch, _) = {
        let mut claimed = site.claim().await;
        while claimed.2 != job {
            claimed = site.claim().await;
        }
        claimed
    };
    assert_ne!(attempt, again);
    let page = site.get(&format!("/jobs/{job}")).await.body;
    assert!(
        page.contains("machine failed") && page.contains("the machine stopped answering") && page.contains("Try 2"),
        "{page}"
    );
    for _ in 0..2 {
        let end = AttemptEnd::Infra {
            cause: "no disk".into(),
        };
        site.store.end_attempt(again, epoch, end, 2).await.unwrap();
    }
    let page = site.get(&format!("/jobs/{job}")).await.body;
    assert!(page.contains("helios-ci failed, not your code"), "{page}");
    let first = site.get(&format!("/jobs/{job}?try=1")).await;
    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(
        site.get(&format!("/jobs/{job}?try=9")).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn head_answers_like_get_without_a_body() {
    let site = Site::new().await;
    for path in ["/", "/nowhere"] {
        let answer = site.send(Method::HEAD, path, &[], "").await;
        assert_eq!(answer.status, site.get(path).await.status);
        assert!(answer.body.is_empty());
    }
}

// --- contrast ---

/// `--name: #rrggbb` of a block of the stylesheet.
fn colours(block: &str) -> std::collections::BTreeMap<String, [f64; 3]> {
    block
        .split(';')
        .filter_map(|pair| pair.trim().rsplit_once("--"))
        .filter_map(|(_, pair)| pair.split_once(": #"))
        .filter(|(_, hex)| hex.len() >= 6)
        .map(|(name, hex)| {
            let part = |i: usize| f64::from(u8::from_str_radix(&hex[i..i + 2], 16).unwrap()) / 255.0;
            (name.to_owned(), [part(0), part(2), part(4)])
        })
        .collect()
}

fn luminance(rgb: [f64; 3]) -> f64 {
    let linear = rgb.map(|c| {
        if c <= 0.040_45 {
            c / 12.92
        } else {
            ((c + 0.055) / 1.055).powf(2.4)
        }
    });
    0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
}

fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn every_text_can_be_read_in_both_themes() {
    assert!((contrast([0.0; 3], [1.0; 3]) - 21.0).abs() < 0.01);
    let mut blocks = STYLE
        .split(":root {")
        .skip(1)
        .map(|rest| rest.split('}').next().unwrap());
    let light = colours(blocks.next().unwrap());
    let dark = colours(blocks.next().unwrap());
    let mut pairs: Vec<(String, &str)> = ["text", "dim", "link", "ok", "bad", "live", "warn", "err", "off", "idle"]
        .iter()
        .flat_map(|fg| [((*fg).to_owned(), "bg"), ((*fg).to_owned(), "card")])
        .collect();
    for state in ["ok", "bad", "live", "warn", "err", "off", "idle"] {
        let ground = ["ok-bg", "bad-bg", "live-bg", "warn-bg", "err-bg", "off-bg", "idle-bg"]
            .iter()
            .find(|g| g.starts_with(state))
            .unwrap();
        pairs.push((state.to_owned(), ground));
        pairs.push(("text".to_owned(), ground));
    }
    for ground in ["log-bg", "log-hl", "log-hover"] {
        pairs.extend((0..16).map(|n| (format!("a{n}"), ground)));
        pairs.push(("log-text".to_owned(), ground));
        pairs.push(("log-dim".to_owned(), ground));
    }
    for (theme, colours) in [("light", &light), ("dark", &dark)] {
        for (text, ground) in &pairs {
            let of = |name: &str| *colours.get(name).unwrap_or_else(|| panic!("{theme} has no --{name}"));
            let ratio = contrast(of(text), of(ground));
            assert!(
                ratio >= 4.5,
                "{theme}: --{text} on --{ground} is {ratio:.2}, WCAG AA wants 4.5"
            );
        }
        assert!(
            contrast(colours["card"], colours["link"]) >= 4.5,
            "{theme}: the main button"
        );
    }
}
