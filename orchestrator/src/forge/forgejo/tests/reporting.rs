//! Where statuses go, and which of them stand, at a server that keeps repositories and statuses.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use super::*;

/// The repository's own id; its successor has another.
const OURS: u64 = 42;
const OTHER: u64 = 43;

/// How a path answers after its repository has gone elsewhere, or before we may see it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Left {
    Redirect,
    Absent,
    Forbidden,
}

impl Left {
    fn reply(self) -> Reply {
        match self {
            Self::Redirect => Reply::Json(307, json!({})),
            Self::Absent => Reply::Json(404, json!({"message": "The target couldn't be found."})),
            Self::Forbidden => Reply::Json(403, json!({"message": "token scope is limited to public repos"})),
        }
    }
}

#[derive(Default)]
struct Server {
    /// Repositories by path.
    repositories: BTreeMap<String, u64>,
    /// Paths that answer so; 404 without.
    left: BTreeMap<String, Left>,
    /// Of each status, the id of the repository that heard it.
    reported: Vec<u64>,
    /// Statuses as they are listed.
    stored: Vec<Value>,
    /// Whether a status is answered with an error, and whether it is stored all the same.
    fails: Option<bool>,
    /// With which; 500 without.
    fault: Option<fn() -> Reply>,
}

type Shared = Arc<Mutex<Server>>;

fn server_answers(server: &Mutex<Server>, seen: &Seen) -> Reply {
    let mut server = server.lock().unwrap();
    let absent = Left::Absent.reply();
    let path = seen.path.trim_start_matches("/api/v1/").to_owned();
    if let Some(id) = path.strip_prefix("repositories/") {
        let id: u64 = id.parse().unwrap();
        let found = server.repositories.iter().find(|(_, at)| **at == id);
        return found.map_or(absent, |(path, _)| {
            Reply::Json(200, json!({"id": id, "full_name": path}))
        });
    }
    let parts: Vec<&str> = path.splitn(4, '/').collect();
    let [_, owner, name, rest @ ..] = &parts[..] else {
        return absent;
    };
    let at = format!("{owner}/{name}");
    let Some(id) = server.repositories.get(&at).copied() else {
        return server.left.get(&at).map_or(absent, |left| left.reply());
    };
    match (seen.method.as_str(), rest) {
        ("GET", []) => Reply::Json(200, json!({"id": id, "full_name": at})),
        ("GET", ["git/refs/heads/main"]) => Reply::Json(
            200,
            json!([{"ref": "refs/heads/main", "object": {"type": "commit", "sha": SHA}}]),
        ),
        ("POST", [_]) => {
            server.reported.push(id);
            if server.fails != Some(false) {
                let mut stored = seen.body.clone();
                stored["status"] = stored["state"].take();
                stored["id"] = json!(1000 + server.reported.len());
                server.stored.push(stored);
            }
            match server.fails {
                Some(_) => match server.fault {
                    Some(fault) => fault(),
                    None => Reply::Json(500, json!({"message": "object does not exist"})),
                },
                None => Reply::Json(201, json!({"id": 1})),
            }
        }
        ("GET", [statuses]) if statuses.starts_with("statuses/") => Reply::Json(200, json!(server.stored)),
        _ => absent,
    }
}

/// A rig before a server that has our repository at `acme/tool`.
async fn serving() -> (super::Rig, Shared) {
    let server: Shared = Arc::default();
    held(&server).repositories.insert("acme/tool".to_owned(), OURS);
    let answering = Arc::clone(&server);
    (rig_with(move |seen| server_answers(&answering, seen)).await, server)
}

fn held(server: &Shared) -> MutexGuard<'_, Server> {
    server.lock().unwrap()
}

impl super::Rig {
    async fn report(&self, state: ReportState) -> Result<(), ForgeError> {
        self.forgejo.report(&report(state), DETAILS, None).await.map(drop)
    }

    async fn branch(&self, name: &str) -> Option<CommitSha> {
        let name = format!("refs/heads/{name}").parse().unwrap();
        self.forgejo.read_ref(&repository(), &name).await.unwrap()
    }
}

/// Our repository has another path, and the old one answers so.
fn moves(server: &Shared, left: Left) {
    let mut server = held(server);
    server.repositories = BTreeMap::from([("corp/engine".to_owned(), OURS)]);
    server.left = BTreeMap::from([("acme/tool".to_owned(), left)]);
}

#[tokio::test]
async fn a_repository_that_moves_gets_all_of_its_states_at_its_new_place() {
    for left in [Left::Redirect, Left::Absent, Left::Forbidden] {
        for state in STATES {
            let (rig, server) = serving().await;
            rig.report(ReportState::Queued).await.unwrap();
            moves(&server, left);
            let told = rig.report(state).await;
            told.unwrap_or_else(|error| panic!("{left:?}, {state:?}: {error}"));
            assert_eq!(held(&server).reported, [OURS, OURS], "{left:?}, {state:?}");
            rig.described();
        }
    }
}

#[tokio::test]
async fn a_ref_is_read_where_the_repository_is() {
    for left in [Left::Redirect, Left::Absent, Left::Forbidden] {
        let (rig, server) = serving().await;
        assert!(rig.branch("main").await.is_some());
        moves(&server, left);
        assert!(rig.branch("main").await.is_some(), "{left:?}");
        assert_eq!(rig.branch("none").await, None, "{left:?}");
    }
}

#[tokio::test]
async fn a_repository_that_takes_anothers_path_gets_nothing_of_it() {
    for state in STATES {
        let (rig, server) = serving().await;
        rig.report(ReportState::Queued).await.unwrap();
        held(&server).repositories = BTreeMap::from([("acme/tool".to_owned(), OTHER)]);
        let gone = rig.report(state).await.unwrap_err();
        assert!(matches!(gone, ForgeError::Forbidden { .. }), "{gone}");
        // Where the old one only moved, it gets them there.
        held(&server).repositories.insert("acme/old".to_owned(), OURS);
        rig.report(state).await.unwrap();
        assert_eq!(held(&server).reported, [OURS, OURS], "{state:?}");
        rig.described();
    }
}

#[tokio::test]
async fn a_repository_that_we_may_not_see_is_forbidden_until_we_may() {
    for left in [Left::Absent, Left::Forbidden] {
        let (rig, server) = serving().await;
        moves(&server, left);
        held(&server).repositories.clear();
        for state in STATES {
            let error = rig.report(state).await.unwrap_err();
            assert!(
                matches!(error, ForgeError::Forbidden { .. }) && error.to_string().contains("write:repository"),
                "{error}"
            );
        }
        held(&server).repositories.insert("acme/tool".to_owned(), OURS);
        rig.report(ReportState::Success).await.unwrap();
    }
}

#[tokio::test]
async fn a_status_that_is_stored_and_answered_500_is_reported_once() {
    for state in STATES {
        let (rig, server) = serving().await;
        {
            let mut server = held(&server);
            server.fails = Some(true);
            // What others, and we before, said of the commit.
            server.stored = vec![
                json!({"id": 7, "status": "pending", "context": "helios-ci / ci / build (x86, 1)", "description": null}),
                json!({"id": 9000, "status": "failure", "context": "helios-ci", "description": "x", "target_url": ""}),
                json!({"id": "odd", "status": 1}),
                json!(null),
            ];
        }
        let told = rig.report(state).await;
        told.unwrap_or_else(|error| panic!("{state:?}: {error}"));
        assert_eq!(rig.statuses().len(), 1);
        rig.described();
    }
}

#[tokio::test]
async fn a_status_that_is_stored_and_not_answered_is_reported_once() {
    for fault in [|| Reply::Json(504, json!({})), || Reply::Cut] {
        let (rig, server) = serving().await;
        held(&server).fails = Some(true);
        held(&server).fault = Some(fault);
        rig.report(ReportState::Success).await.unwrap();
        assert_eq!(rig.statuses().len(), 1);
        held(&server).fails = Some(false);
        let lost = rig.report(ReportState::Failure).await;
        assert!(matches!(lost, Err(ForgeError::Away { .. })), "{lost:?}");
    }
}

#[tokio::test]
async fn an_error_is_one_unless_our_status_is_the_newest_of_its_context() {
    let mine = serde_json::to_value(Status::new(&report(ReportState::Success), DETAILS)).unwrap();
    let stored = |id: u64, change: &[(&str, &str)]| {
        let mut stored = mine.clone();
        stored["status"] = stored["state"].take();
        stored["id"] = json!(id);
        for (field, value) in change {
            stored[*field] = json!(value);
        }
        stored
    };
    let cases = [
        (vec![], false),
        (vec![stored(3, &[])], true),
        (vec![stored(3, &[("description", " 2 of 3 jobs failed ")])], true),
        (vec![stored(3, &[("status", "failure")])], false),
        (vec![stored(3, &[("context", "helios-ci")])], false),
        (vec![stored(3, &[("description", "1 of 3 jobs failed")])], false),
        (vec![stored(3, &[("target_url", "https://ci.example/jobs/2")])], false),
        // Listed in any order: only ids tell which is newer.
        (vec![stored(3, &[]), stored(4, &[("status", "pending")])], false),
        (vec![stored(4, &[("status", "pending")]), stored(5, &[])], true),
    ];
    for (listed, told) in cases {
        let (rig, server) = serving().await;
        held(&server).fails = Some(false);
        held(&server).stored.clone_from(&listed);
        let said = rig.report(ReportState::Success).await;
        let good = match &said {
            Ok(()) => told,
            Err(error) => !told && matches!(error, ForgeError::Later { .. }),
        };
        assert!(good, "{listed:?}: {said:?}");
        assert_eq!(rig.statuses().len(), 1, "{listed:?}");
    }
}

#[tokio::test]
async fn a_server_is_there_when_it_answers_anything_and_knows_us() {
    let answers = [
        (200, true),
        (404, true),
        (403, true),
        (302, false),
        (401, false),
        (422, false),
        (500, false),
        (502, false),
        (503, false),
    ];
    for (status, there) in answers {
        let rig = rig_with(move |_| Reply::Json(status, json!({"message": "x", "version": "1"}))).await;
        let answer = rig.forgejo.answers().await;
        let is_there = matches!(answer, Ok(()) | Err(ForgeError::Forbidden { .. }));
        assert_eq!(is_there, there, "{status}: {answer:?}");
        assert_eq!(rig.listener.lines(), ["GET /api/v1/version"]);
    }
}
