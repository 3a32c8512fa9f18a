use std::{
    collections::BTreeSet,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use miette::{GraphicalReportHandler, GraphicalTheme};
use proptest::prelude::*;

use super::*;
use crate::yaml::{Node, Value};

const OPTIONS: LoadOptions = LoadOptions { dev_env_secrets: false };

pub(super) fn parse(text: &str) -> Result<Loaded, ConfigError> {
    Config::parse(Path::new("ci.yaml"), text, OPTIONS)
}

/// `line:column message` of every problem.
pub(super) fn problems(text: &str) -> Vec<String> {
    let error = parse(text).map(|loaded| loaded.to_shown_yaml()).unwrap_err();
    let line = |p: &Problem| format!("{}:{} {}", p.span.line, p.span.column, p.message);
    error.problems().iter().map(line).collect()
}

fn file(dir: &Path, name: &str, content: &str, mode: u32) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// A Forgejo connection whose secrets exist, with more lines.
fn forgejo(dir: &Path, more: &str) -> String {
    let token = file(dir, "token", "t0ken\n", 0o600);
    let webhook = file(dir, "webhook", "hush", 0o400);
    format!(
        "node: n\nconnections:\n  local:\n    kind: forgejo\n    url: https://forge.example.org\n    \
         token: file:{}\n    webhook_secrets: [file:{}]\n{more}",
        token.display(),
        webhook.display()
    )
}

#[test]
fn an_empty_configuration_is_the_documented_defaults() {
    let loaded = parse("node: n\n").unwrap();
    let config = &loaded.config;
    assert_eq!(config.data_dir, Path::new("/var/lib/helios-ci"));
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.public_url, "http://127.0.0.1:8080");
    assert!(matches!(&config.database, Database::Sqlite(p) if p == Path::new("/var/lib/helios-ci/helios-ci.db")));
    assert_eq!((config.capacity.machines, config.capacity.cpus), (2, None));
    assert_eq!(
        (&config.limits, &config.keep, &config.retention),
        (&Limits::default(), &Keep::default(), &Retention::default())
    );
    assert_eq!(config.sizes, Size::presets());
    assert_eq!(
        loaded.warnings.len(),
        2,
        "no images, no connections: {:?}",
        loaded.warnings
    );
    assert!(parse("").is_ok() || problems("")[0].contains("host's name"));
}

#[test]
fn a_machine_is_kept_by_default_for_no_longer_than_at_most() {
    let keep = |text: &str| parse(&format!("node: n\nkeep: {text}")).unwrap().config.keep;
    assert_eq!(keep("{max_minutes: 10}").default_minutes, 10);
    assert_eq!(keep("{default_minutes: 60}").max_minutes, 1440);
    let said = problems("node: n\nkeep: {default_minutes: 31, max_minutes: 30}");
    assert!(
        said.len() == 1 && said[0].contains("2:25") && said[0].contains("more than keep.max_minutes"),
        "{said:?}"
    );
    assert_eq!(problems("node: n\nkeep: {max_minutes: 10081}").len(), 1);
}

const EXAMPLE: &str = include_str!("../../../docs/config.example.yaml");

/// A key's path with `*` for names that are free, and for places in a list.
fn general(path: &str) -> String {
    let mut general: Vec<&str> = Vec::new();
    for part in path.split('.') {
        let free = matches!(
            general.last(),
            Some(&("connections" | "images" | "sizes" | "aliases" | "labels" | "attributes"))
        );
        let index = part.bytes().all(|b| b.is_ascii_digit());
        general.push(if free || index { "*" } else { part });
    }
    general.join(".")
}

fn written(node: &Node, path: &str, keys: &mut BTreeSet<String>) {
    let mut below = |name: &str, node: &Node| {
        let path = if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        };
        keys.insert(general(&path));
        written(node, &path, keys);
    };
    match &node.value {
        Value::Mapping(entries) => entries.iter().for_each(|(key, node)| below(&key.text, node)),
        Value::Sequence(items) => (0..)
            .zip(items)
            .for_each(|(index, node): (u32, _)| below(&index.to_string(), node)),
        Value::Scalar(_) => {}
    }
}

#[test]
fn the_example_names_every_key() {
    // What is commented out is named all the same.
    let commented = regex::Regex::new("(?m)^( *)# ( *[a-z_]+:(?: .*)?)$").unwrap();
    let text = commented.replace_all(EXAMPLE, "$1$2");
    let root = load::parse(&text).unwrap();
    let mut named = BTreeSet::new();
    written(&root, "", &mut named);
    // Secrets of the example are nowhere, which is no matter here.
    let mut reader = read::Reader::new(Path::new("example"), OPTIONS);
    let _incomplete = load::read(&mut reader, &root);
    let known: BTreeSet<String> = reader.keys.iter().map(|path| general(path)).collect();
    assert!(
        known.contains("connections.*.webhook_secrets.*.repository_id") && known.len() > 70,
        "{known:#?}"
    );
    let missing: Vec<&String> = known.difference(&named).collect();
    assert!(
        missing.is_empty(),
        "docs/config.example.yaml does not name {missing:#?}"
    );
    // The two forms of `database` that are no single word stand in its comment.
    assert!(EXAMPLE.contains("{sqlite: /") && EXAMPLE.contains("{postgres: file:/"));
}

#[test]
fn the_example_is_valid_and_what_is_shown_of_it_is_it_again() {
    let text = EXAMPLE;
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "codeberg-token",
        "codeberg-webhook",
        "codeberg-webhook-app",
        "github-webhook",
    ] {
        file(dir.path(), name, "s3cret\n", 0o600);
    }
    let pem = "-----BEGIN RSA PRIVATE KEY-----\nAA==\n-----END RSA PRIVATE KEY-----\n";
    file(dir.path(), "github-app.pem", pem, 0o600);
    let secrets = format!("file:{}", dir.path().display());
    let text = text.replace("file:/etc/helios-ci/secrets", &secrets);
    let loaded = parse(&text).unwrap_or_else(|e| panic!("{:#?}", e.problems()));
    assert_eq!(loaded.warnings, []);
    let shown = loaded.to_shown_yaml();
    assert!(!shown.contains("s3cret") && !shown.contains("BEGIN RSA"), "{shown}");
    assert!(shown.contains(&format!("token: {secrets}/codeberg-token")), "{shown}");
    assert!(loaded.config.to_shown_yaml().contains("token: '[secret]'"));
    // What is shown is a configuration again, and the same one.
    let again = parse(&shown).unwrap_or_else(|e| panic!("{:#?}\n{shown}", e.problems()));
    assert_eq!(again.to_shown_yaml(), shown);
    assert_eq!(format!("{:?}", again.config), format!("{:?}", loaded.config));
    let codeberg = &loaded.config.connections[&"codeberg".parse().unwrap()];
    assert_eq!(codeberg.webhook_secrets[1].repository_id, Some(4711.into()));
    assert_eq!(
        codeberg.webhook_secrets[0].secret.expose(),
        "s3cret",
        "the line's end is not part of it"
    );
}

#[test]
fn everything_that_is_wrong_is_said_at_once_and_in_order() {
    let said = problems("node: n\ncapcity: {}\nlisten: here\nlimits:\n  log_bytes: [1]\n  infra_tries: many\n");
    assert_eq!(
        said,
        [
            "2:1 unknown key `capcity` in the configuration",
            "3:9 listen `here` is not possible: invalid socket address syntax",
            "5:14 limits.log_bytes must be a number, not a list",
            "6:16 limits.infra_tries must be a whole number, not `many`",
        ]
    );
    let error = parse("capcity: {}").unwrap_err();
    assert_eq!(error.problems()[0].help.as_deref(), Some("did you mean `capacity`?"));
    assert_eq!(
        error.problems()[0].to_string(),
        "ci.yaml:1:1: unknown key `capcity` in the configuration"
    );
}

#[test]
fn impossible_values_are_refused_where_they_stand() {
    let table = [
        (
            "data_dir: var/lib",
            "1:11 data_dir `var/lib` must be an absolute path without `..`",
        ),
        (
            "data_dir: /a/../b",
            "1:11 data_dir `/a/../b` must be an absolute path without `..`",
        ),
        (
            "listen: 0.0.0.0:80\npublic_url: http://a",
            "1:9 listen 0.0.0.0:80 would serve passwords and cookies over plain HTTP",
        ),
        (
            "public_url: ci.example.org",
            "1:13 public_url must be an absolute http or https address without `?` and `#`",
        ),
        (
            "public_url: ftp://ci",
            "1:13 public_url must be an absolute http or https address without `?` and `#`",
        ),
        (
            "public_url: https://ci/?a",
            "1:13 public_url must be an absolute http or https address without `?` and `#`",
        ),
        (
            "public_url: https://u:hunter2@ci",
            "1:13 public_url must not hold a user or password",
        ),
        (
            "default_label: none",
            "1:16 default_label `none` is no image and no alias",
        ),
        ("aliases: {a: b}", "1:14 aliases.a names `b`, which is no image"),
        (
            "images: {a: {disk: /d}}\naliases: {a: a}",
            "2:11 `a` is an image; an alias needs another name",
        ),
        (
            "images: {a: {disk: /d, size: vast}}",
            "1:30 images.a.size: there is no size `vast`",
        ),
        ("images: {a: {}}", "1:10 images.a.disk is missing"),
        (
            "images: {a: {disk: /d, sha256: abc}}",
            "1:32 images.a.sha256 must be 64 lower-case hexadecimal digits",
        ),
        (
            "images: {a: {disk: /d, initrd: /i}}",
            "1:32 images.a.initrd has no meaning without images.a.kernel",
        ),
        (
            "images: {'a b': {disk: /d}}",
            "1:10 `a b` is not a label: 1 to 64 letters, digits, `-`, `_` and `.`, the first a letter or digit",
        ),
        (
            "images: {a: {disk: /d}}\ncapacity: {cpus: 1}",
            "2:11 a machine of image `a` does not fit into the capacity of this node",
        ),
        (
            "capacity: {labels: {a: 1}}",
            "1:11 capacity.labels counts machines of an image, and the label `a` is no image and no alias",
        ),
        (
            "node: Upper",
            "1:7 node `Upper` is not possible: `Upper` is not a node name: 1 to 63 of a-z, 0-9, `-` and `.`, the first a letter or digit",
        ),
        ("node: a\nnode: b", "2:1 the key `node` stands twice"),
        ("backend: qem", "1:10 there is no backend `qem`"),
        ("tls: {key: /k}", "1:6 tls.certificate is missing"),
        ("limits: 3", "1:9 limits must be a mapping, not a single value"),
        ("- 1", "1:1 the configuration must be a mapping, not a list"),
        (
            "metrics_listen: 127.0.0.1:8080",
            "1:17 metrics_listen is the same address as listen",
        ),
        (
            "limits: {log_bytes: 99999999GiB}",
            "1:21 limits.log_bytes cannot be 107374181326258176",
        ),
        (
            "limits: {log_bytes: 99999999999999999999}",
            "1:21 limits.log_bytes must be a whole number, not `99999999999999999999`",
        ),
        (
            "limits: {log_bytes: '64'}",
            "1:21 limits.log_bytes must be a number, not a single value",
        ),
        (
            "limits: {infra_tries: -1}",
            "1:23 limits.infra_tries must be a whole number, not `-1`",
        ),
        (
            "node: &a n",
            "1:10 anchors and aliases are not allowed here: write the value out",
        ),
        ("node: !!str n", "1:7 tags are not allowed here"),
        (
            "connections: {x: {url: https://f}}",
            "1:18 connections.x.kind must be forgejo or github",
        ),
        (
            "connections: {X: {}}",
            "1:15 `X` is not a connection name: 1 to 40 of a-z, 0-9 and `-`, the first a letter or digit",
        ),
    ];
    for (text, expected) in table {
        let found = problems(text);
        assert!(found.contains(&expected.to_owned()), "{text:?}: {found:#?}");
    }
}

#[test]
fn zero_is_possible_only_where_it_has_a_documented_meaning() {
    let refused = [
        "capacity: {machines: 0}",
        "capacity: {cpus: 0}",
        "capacity: {memory_mib: 0}",
        "sizes: {x: {cpus: 0}}",
        "sizes: {x: {memory_mib: 0}}",
        "sizes: {x: {disk_gib: 0}}",
        "images: {a: {disk: /d, boot_timeout_s: 0}}",
        "limits: {job_timeout_minutes: 0}",
        "limits: {idle_timeout_minutes: 0}",
        "limits: {queue_timeout_minutes: 0}",
        "limits: {log_bytes: 0}",
        "limits: {infra_tries: 0}",
        "limits: {node_grace_s: 0}",
        "limits: {repository_bytes: 0}",
        "keep: {default_minutes: 0}",
        "keep: {max_minutes: 0}",
        "zone: {quota_gib: 0}",
    ];
    for text in refused {
        let found = problems(&format!("node: n\n{text}"));
        assert!(
            found.len() == 1 && found[0].ends_with("cannot be 0"),
            "{text}: {found:?}"
        );
    }
    let config = parse(
        "node: n\nimages: {a: {disk: /d}}\ncapacity: {labels: {a: 0}}\nlimits: {cancel_grace_s: 0, min_free_bytes: 0}\n\
         retention: {logs_days: 0, runs_days: 0, deliveries_days: 0}",
    );
    let config = config.unwrap().config;
    // For ever.
    assert_eq!((config.retention.logs_days, config.retention.runs_days), (0, 0));
    assert_eq!(config.capacity.labels[&"a".parse().unwrap()], 0);
    assert_eq!((config.limits.cancel_grace_s, config.limits.min_free_bytes), (0, 0));
}

#[test]
fn connections_must_be_complete_and_safe() {
    let dir = tempfile::tempdir().unwrap();
    assert!(parse(&forgejo(dir.path(), "")).is_ok());
    let found = problems(&forgejo(dir.path(), "    public: [a/b]\n    repositories: [c/d]\n"));
    assert_eq!(
        found,
        ["8:14 connections.local.public names a/b, which connections.local.repositories leaves out"]
    );
    let plain = forgejo(dir.path(), "").replace("https://forge", "http://forge");
    assert!(problems(&plain)[0].contains("would carry tokens in the clear"));
    assert!(parse(&format!("{plain}    allow_private: true\n")).is_ok());
    let without = forgejo(dir.path(), "").replace("    webhook_secrets", "    app_id: 1\n    #");
    let found = problems(&without);
    assert_eq!(found[0], "4:5 connections.local has no webhook secret");
    assert_eq!(found[1], "7:5 unknown key `app_id` in connections.local");
    let found = problems("node: n\nconnections:\n  gh:\n    kind: github\n");
    assert_eq!(
        found,
        [
            "4:5 connections.gh has no webhook secret",
            "4:5 connections.gh.private_key is missing",
            "4:5 connections.gh.app_id is missing",
        ]
    );
}

#[test]
fn secrets_come_from_files_that_only_their_owner_reads() {
    let dir = tempfile::tempdir().unwrap();
    let text = forgejo(dir.path(), "");
    for (content, mode, expected) in [
        ("t", 0o640, "is open to others: its mode is 0640"),
        ("t", 0o604, "is open to others: its mode is 0604"),
        ("\n", 0o600, "the secret is empty"),
        ("a b", 0o600, "a token has one line and no spaces"),
        ("a\nb", 0o600, "a token has one line and no spaces"),
    ] {
        file(dir.path(), "token", content, mode);
        let found = problems(&text);
        assert!(
            found.len() == 1 && found[0].contains(expected),
            "{content:?} {mode:o}: {found:?}"
        );
    }
    // The administrator's commands, as root, read what the daemon's user owns.
    if nix::unistd::geteuid().is_root() {
        file(dir.path(), "token", "t", 0o600);
        std::os::unix::fs::chown(dir.path().join("token"), Some(12_345), None).unwrap();
        assert!(Config::parse(Path::new("ci.yaml"), &text, LoadOptions::default()).is_ok());
    }
    std::fs::remove_file(dir.path().join("token")).unwrap();
    assert!(problems(&text)[0].contains("cannot read the secret"));
    std::fs::create_dir(dir.path().join("token")).unwrap();
    assert!(problems(&text)[0].contains("is not a regular file"));
    std::fs::remove_dir(dir.path().join("token")).unwrap();
    std::fs::write(dir.path().join("token"), vec![b'x'; 70_000]).unwrap();
    file(dir.path(), "token", &"x".repeat(70_000), 0o600);
    assert!(problems(&text)[0].contains("is larger than"));
}

#[test]
fn the_environment_holds_secrets_only_in_development() {
    let dir = tempfile::tempdir().unwrap();
    let text = forgejo(dir.path(), "");
    let token = text.lines().find(|line| line.contains("token:")).unwrap();
    // The build tool sets this variable for every test.
    let text = text.replace(token, "    token: env:CARGO_PKG_NAME");
    assert!(problems(&text)[0].contains("is only for development"));
    let options = LoadOptions { dev_env_secrets: true };
    let loaded = Config::parse(Path::new("ci.yaml"), &text, options).unwrap();
    assert!(
        loaded
            .warnings
            .iter()
            .any(|w| w.message.contains("comes from the environment"))
    );
    let ConnectionKind::Forgejo { token } = &loaded.config.connections[&"local".parse().unwrap()].kind else {
        panic!("it is a Forgejo");
    };
    assert_eq!(token.expose(), "helios-ci");
    let unset = text.replace("CARGO_PKG_NAME", "HELIOS_CI_NO_SUCH_VARIABLE");
    let error = Config::parse(Path::new("ci.yaml"), &unset, options).unwrap_err();
    assert!(error.problems()[0].message.contains("is not set"));
}

#[test]
fn a_secret_written_into_the_configuration_is_never_repeated() {
    let places = [
        "connections:\n  x:\n    kind: forgejo\n    url: https://f\n    token: hunter2hunter2\n    webhook_secrets: [ok]",
        "connections:\n  x:\n    kind: forgejo\n    url: https://f\n    tokn: hunter2hunter2",
        "connections:\n  x:\n    kind: forgejo\n    url: https://f\n    webhook_secrets:\n      - hunter2hunter2\n      - secret: hunter2hunter2",
        "connections:\n  x:\n    kind: github\n    private_key: |\n      hunter2hunter2\n      hunter2hunter2",
        "connections:\n  x:\n    kind: github\n    private_key: \"hunter2hunter2\\n\"\n    token: {a: hunter2hunter2}",
        "database: postgres://u:hunter2hunter2@h/db",
        "database: {postgres: 'postgres://u:hunter2hunter2@h/db'}",
        "public_url: https://u:hunter2hunter2@h\nsercet: hunter2hunter2",
        "password: hunter2hunter2\nnode: [",
        "connections:\n  x:\n    kind: forgejo\n    url: https://f\n    token: env:hunter2hunter2\n    webhook_secrets: [file:hunter2hunter2]",
    ];
    for text in places {
        let error = parse(text).unwrap_err();
        let mut report = String::new();
        GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
            .render_report(&mut report, &error)
            .unwrap();
        assert!(!report.contains("hunter2"), "{report}");
        assert!(!format!("{error:?} {error}").contains("hunter2"));
    }
    let error = parse(places[0]).unwrap_err();
    let mut report = String::new();
    GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
        .render_report(&mut report, &error)
        .unwrap();
    assert!(
        report.contains("never the secret itself") && report.contains("**************"),
        "{report}"
    );
}

#[test]
fn trusted_proxies_are_addresses_and_networks_but_never_everybody() {
    let config = parse("node: n\ntrusted_proxies: [127.0.0.1, 10.0.0.0/8, 'fd00::1']\n")
        .unwrap()
        .config;
    let shown: Vec<String> = config.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["127.0.0.1/32", "10.0.0.0/8", "fd00::1/128"]);
    for bad in ["0.0.0.0/0", "localhost", "10.0.0.0/33"] {
        let error = parse(&format!("node: n\ntrusted_proxies: ['{bad}']\n")).unwrap_err();
        assert!(format!("{error:?}").contains(bad), "{error:?}");
    }
}

#[test]
fn labels_lead_to_images_through_aliases_and_the_default() {
    let config = parse(
        "node: n\nimages:\n  a: {disk: /a, size: large}\n  b: {disk: /b}\naliases: {c: a}\ndefault_label: c\n\
         sizes: {large: {cpus: 8, memory_mib: 1024}}",
    );
    let mut config = config.unwrap().config;
    let label = |text: &str| text.parse::<Label>().unwrap();
    let of = |config: &Config, asked: Option<&str>| {
        let asked = asked.map(label);
        config
            .resolve_label(asked.as_ref())
            .map(|(l, image, size)| (l, image.disk.clone().unwrap_or_default(), size.cpus))
    };
    assert_eq!(of(&config, Some("c")).unwrap(), (label("a"), PathBuf::from("/a"), 8));
    assert_eq!(of(&config, None).unwrap().0, label("a"));
    assert_eq!(of(&config, Some("b")).unwrap(), (label("b"), PathBuf::from("/b"), 2));
    let error = of(&config, Some("d")).unwrap_err();
    assert_eq!(error.to_string(), "no machine has the label `d`; labels here: a, b, c");
    // A job may ask for another size; the disk never shrinks below the image's.
    let image = Image {
        size: Size {
            disk_gib: Some(7),
            ..Size::default()
        },
        ..config.images[&label("b")].clone()
    };
    let size = config.resolve_size(&label("large"), &image).unwrap();
    assert_eq!((size.cpus, size.memory_mib, size.disk_gib), (8, 1024, Some(7)));
    let error = config.resolve_size(&label("giant"), &image).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no size `giant`; sizes here: large, medium, small"
    );
    config.default_label = None;
    let error = of(&config, None).unwrap_err();
    assert_eq!((error.label.is_none(), error.known.len()), (true, 3));
}

#[test]
fn classes_tell_labels_and_sizes_apart_and_never_change() {
    let label = |text: &str| text.parse::<Label>().unwrap();
    let size = Size::default();
    let class = Config::class(&label("debian-13"), size);
    assert_eq!(class, "05b9d11c2b019d67");
    let others = [
        Config::class(&label("debian-12"), size),
        Config::class(&label("debian-13"), Size { cpus: 3, ..size }),
        Config::class(&label("debian-13"), Size { memory_mib: 1, ..size }),
        Config::class(
            &label("debian-13"),
            Size {
                disk_gib: Some(1),
                ..size
            },
        ),
    ];
    assert!(others.iter().all(|other| *other != class && other.len() == 16));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("/nonexistent/ci.yaml"), OPTIONS).unwrap_err();
    assert_eq!(error.to_string(), "there is no configuration at /nonexistent/ci.yaml");
    assert_eq!(config_path(Some("/x".into())), Path::new("/x"));
}

#[test]
fn deep_nesting_ends_in_a_message() {
    let text = format!("node: {}", "[".repeat(100_000));
    assert!(!problems(&text).is_empty());
    assert!(problems(&format!("node: {}", "#".repeat(2 << 20)))[0].contains("larger than"));
    assert!(problems("node: a\n---\nnode: b")[0].contains("one YAML document; this begins another"));
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_yaml_like_text_panics_or_points_outside(
        lines in proptest::collection::vec(
            "( {0,6})(node|images|limits|token|connections|x|- a|kind|secret|é)(: |:)([\\[\\]{}&*!|>'\"#,é0-9a-z ]{0,12})", 0..20)
    ) {
        let text = lines.join("\n");
        if let Err(error) = parse(&text) {
            let mut report = String::new();
            GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).render_report(&mut report, &error).unwrap();
            prop_assert!(!error.problems().is_empty());
        }
    }
}
