//! A small installation: a public and a private repository, a run that failed, one that runs, one
//! whose workflow file is broken, and logs with colours and hostile text.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode},
};
use tower::ServiceExt as _;

use crate::{
    clock::now_ms,
    config::{Backend, Capacity, Config, Connection, ConnectionKind, Database, Limits, Retention},
    forge::{ConnectionHealth, ForgeError},
    intake::Intake,
    logs::{Channel, LogStore, LogWriter},
    machine::process,
    model::{
        diagnostic::Diagnostic,
        ids::{AttemptId, InstanceId, JobId, RunId, TriggerId},
        names::{CommitSha, ConnectionId, NodeName, RefName, RepoPath},
        plan::{Action, Condition, PLAN_VERSION, Plan, PlanSpan, PlannedJob, PlannedStep, Shell, Template},
        size::Size,
        state::{JobResult, StepState},
        trigger::{Event, Repository, Trigger},
    },
    planner::Caught,
    queue::InProcess,
    secret::Secret,
    store::{AttemptEnd, JobRequirement, NewRun, NewToken, PlannedRun, StepUpdate, Store, StoreError, TriggerOutcome},
    telemetry::Metrics,
    web::{
        AppState, Parts, Repositories,
        identity::{self, ADMIN_SCOPE, token_hash},
        live, router,
    },
};

/// What hostile people write wherever they can.
pub const EVIL: &str = "<img src=x onerror=alert(1)>\"'&<script>alert(2)</script>";
pub const ORIGIN: &str = "http://127.0.0.1:8080";
pub const COMMIT: &str = "3f786850e387550fdab836ed7e6dc881de23001b";

/// Finds the two repositories of the fixture, and fails for one name.
struct KnownRepositories;

#[async_trait]
impl Repositories for KnownRepositories {
    async fn find(&self, connection: &ConnectionId, path: &RepoPath) -> Result<Option<Repository>, ForgeError> {
        match path.as_str() {
            "helios/demo" => Ok(Some(Repository {
                connection: connection.clone(),
                id: 1.into(),
                path: path.clone(),
                context: 7.into(),
            })),
            "helios/away" => Err(ForgeError::Away {
                forge: "https://forge.example".into(),
                call: "repository".into(),
                reason: "time-out".into(),
                retry_after: None,
            }),
            _ => Ok(None),
        }
    }

    async fn read_ref(&self, _: &Repository, name: &RefName) -> Result<Option<CommitSha>, ForgeError> {
        let there = ["refs/heads/main", "refs/tags/v1", "refs/heads/both", "refs/tags/both"];
        Ok(there.contains(&name.as_str()).then(|| COMMIT.parse().unwrap()))
    }

    async fn catch_up(&self) -> Result<Vec<Caught>, StoreError> {
        Ok(vec![Caught {
            connection: "berg".parse().unwrap(),
            repositories: 0,
            delivered_again: 0,
            broken: Some("it does not accept the credentials".into()),
        }])
    }
}

pub struct Site {
    pub state: AppState,
    pub router: Router,
    pub store: Store,
    pub logs: LogStore,
    pub token: Secret,
    pub public: Made,
    pub private: Made,
    pub _folder: tempfile::TempDir,
    pub instance: InstanceId,
}

/// What a trigger became.
#[derive(Debug, Clone)]
pub struct Made {
    pub trigger: TriggerId,
    pub run: RunId,
    pub jobs: Vec<JobId>,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

pub fn node() -> NodeName {
    "fern".parse().unwrap()
}

fn config(folder: &std::path::Path) -> Config {
    let connection = Connection {
        kind: ConnectionKind::Forgejo {
            token: Secret::new("t"),
        },
        url: "https://forge.example".into(),
        webhook_secrets: vec![],
        repositories: vec![],
        public: vec!["helios/demo".parse().unwrap()],
        allow_private: false,
    };
    Config {
        zone: crate::config::Zone {
            dataset: "rpool/hci".parse().unwrap(),
            path: "/zones/hci".parse().unwrap(),
            network: crate::model::illumos::network::Range::default(),
            port: 9417,
            bandwidth: "1G".parse().unwrap(),
            quota_gib: None,
            max_vcpus: 32,
        },
        node: node(),
        data_dir: folder.to_owned(),
        listen: "127.0.0.1:8080".parse().unwrap(),
        metrics_listen: None,
        public_url: ORIGIN.to_owned(),
        tls: None,
        trusted_proxies: vec![],
        database: Database::Sqlite(folder.join("db")),
        connections: BTreeMap::from([("berg".parse().unwrap(), connection)]),
        agent: "/nonexistent/helios-agent".into(),
        // So that machines may be kept; nothing here starts one.
        backend: Backend::Qemu,
        machined: None,
        images: BTreeMap::new(),
        aliases: BTreeMap::new(),
        default_label: None,
        sizes: BTreeMap::new(),
        capacity: Capacity {
            machines: 2,
            cpus: None,
            memory_mib: None,
            labels: BTreeMap::new(),
        },
        limits: Limits {
            job_timeout_minutes: 360,
            idle_timeout_minutes: 60,
            queue_timeout_minutes: 1440,
            log_bytes: 64 << 20,
            infra_tries: 3,
            cancel_grace_s: 300,
            node_grace_s: 600,
            agent_silence_s: 120,
            min_free_bytes: 0,
            repository_bytes: 1 << 30,
        },
        keep: crate::config::Keep::default(),
        retention: Retention {
            logs_days: 90,
            runs_days: 365,
            deliveries_days: 14,
        },
    }
}

fn step(name: &str, script: &str, line: u32) -> PlannedStep {
    PlannedStep {
        id: None,
        span: PlanSpan::at(line, 7),
        name: Template::default_of(name.into()),
        condition: Template::default_of(Condition::Success),
        action: Action::Run {
            script: Template::default_of(script.into()),
            shell: Template::default_of(Shell::Default),
            working_directory: None,
        },
        env: vec![],
        timeout_minutes: None,
        continue_on_error: Template::default_of(false),
    }
}

fn job(id: &str, name: &str, needs: &[&str]) -> PlannedJob {
    PlannedJob {
        id: id.into(),
        span: PlanSpan::at(1, 1),
        name: Template::default_of(name.into()),
        condition: Template::default_of(Condition::Success),
        strategy: None,
        runs_on: vec![Template::default_of("helios".parse().unwrap())],
        needs: needs.iter().map(|n| (*n).to_owned()).collect(),
        env: vec![],
        timeout_minutes: Template::default_of(30),
        outputs: vec![],
        call: None,
        steps: vec![
            step("Check out", "true", 9),
            step("Build", "make", 11),
            step("Test", "make test", 13),
        ],
    }
}

pub fn trigger(path: &str, id: u64, title: &str) -> Trigger {
    Trigger {
        repository: Repository {
            connection: "berg".parse().unwrap(),
            id: id.into(),
            path: path.parse().unwrap(),
            context: crate::model::names::ForgeContext::default(),
        },
        event: Event::push("refs/heads/<img>".parse().unwrap(), COMMIT.parse().unwrap(), None),
        actor: EVIL.into(),
        title: title.into(),
        payload: None,
    }
}

impl Site {
    /// Both repositories with one queued run of three jobs each, and a token.
    pub async fn new() -> Self {
        Self::with_stream_poll(live::poll()).await
    }

    /// As [`Site::new`], with live pages that poll so often, or never.
    pub async fn with_stream_poll(stream_poll: Option<Duration>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_temporary().await.unwrap();
        let logs = LogStore::new(folder.path());
        let config = Arc::new(config(folder.path()));
        let state = AppState::new(Parts {
            store: store.clone(),
            logs: logs.clone(),
            config: Arc::clone(&config),
            machines: process::open(process::Options {
                node: node(),
                data_dir: folder.path().to_owned(),
                agent: "/nonexistent/helios-agent".into(),
            })
            .unwrap(),
            repositories: Arc::new(KnownRepositories),
            connections: ConnectionHealth::new(&["berg".parse().unwrap()]),
            hints: Arc::new(InProcess::new()),
            stream_poll,
            metrics: Metrics::new(),
            draining: tokio_util::sync::CancellationToken::new(),
        });
        let token = identity::new_token();
        let new = NewToken {
            name: "test".into(),
            hash: token_hash(token.expose()).unwrap(),
            owner: "ada".into(),
            expires_ms: now_ms() + 3_600_000,
            scopes: vec![ADMIN_SCOPE.into()],
        };
        store.create_token(new).await.unwrap();
        let instance = InstanceId::new();
        store
            .register_node(&node(), instance, Duration::from_secs(1))
            .await
            .unwrap();
        let public = plan(
            &store,
            &trigger("helios/demo", 1, EVIL),
            &[("build", EVIL), ("test", "test"), ("doc", "doc")],
        )
        .await;
        let private = plan(
            &store,
            &trigger("helios/secret", 2, "a secret plan"),
            &[("build", "build")],
        )
        .await;
        let forges = config.connections.iter().map(|(id, connection)| {
            let forge = crate::forge::connect(id, connection).unwrap();
            (id.clone(), forge)
        });
        let intake = Intake::new(
            config.clone(),
            forges.collect(),
            store.clone(),
            Arc::new(InProcess::new()),
        );
        let router = router(state.clone(), intake.router());
        Self {
            state,
            router,
            store,
            logs,
            token,
            public,
            private,
            _folder: folder,
            instance,
        }
    }

    /// Claims the oldest queued job; both runs have one, the public repository's comes first.
    pub async fn claim(&self) -> (AttemptId, i64, JobId) {
        self.claim_by(&node(), self.instance).await
    }

    /// As [`Site::claim`], by a node of another name.
    pub async fn claim_elsewhere(&self, name: &str) -> (AttemptId, i64, JobId) {
        let (node, instance) = (name.parse().unwrap(), InstanceId::new());
        self.store
            .register_node(&node, instance, Duration::from_secs(1))
            .await
            .unwrap();
        self.claim_by(&node, instance).await
    }

    async fn claim_by(&self, node: &NodeName, instance: InstanceId) -> (AttemptId, i64, JobId) {
        let claimed = self
            .store
            .claim_job(node, instance, &["helios".to_owned()])
            .await
            .unwrap()
            .unwrap();
        self.store
            .attempt_running(claimed.attempt, claimed.epoch, "{}")
            .await
            .unwrap();
        (claimed.attempt, claimed.epoch, claimed.job)
    }

    pub async fn writer(&self, attempt: AttemptId) -> LogWriter {
        self.logs.open_writer(attempt, vec![], 64 << 20, None).await.unwrap()
    }

    /// One step's state.
    pub async fn step(&self, attempt: AttemptId, epoch: i64, index: u32, name: &str, state: StepState) {
        let now = now_ms();
        let ended = matches!(state, StepState::Success | StepState::Failure);
        let running = StepUpdate {
            index,
            name: name.into(),
            state: StepState::Running,
            exit_code: None,
            message: None,
            started_ms: Some(now - 2300),
            ended_ms: None,
            allowed_failure: false,
        };
        assert!(self.store.step(attempt, epoch, running.clone()).await.unwrap());
        if state != StepState::Running {
            let failed = state == StepState::Failure;
            let update = StepUpdate {
                state,
                exit_code: ended.then_some(i32::from(failed) * 2),
                message: failed.then(|| format!("exit code 2 {EVIL}")),
                ended_ms: ended.then_some(now),
                ..running
            };
            assert!(self.store.step(attempt, epoch, update).await.unwrap());
        }
    }

    /// Runs the first public job to a failed end with `lines` lines of log.
    pub async fn failed_job(&self, lines: u32) -> (AttemptId, JobId) {
        let (attempt, epoch, job) = self.claim().await;
        let mut log = self.writer(attempt).await;
        self.step(attempt, epoch, 0, "Check out", StepState::Success).await;
        log.system(0, "Checking out 3f786850e3").unwrap();
        log.end_step(0).unwrap();
        self.step(attempt, epoch, 1, EVIL, StepState::Failure).await;
        for n in 1..=u64::from(lines) {
            let text = match n % 5 {
                0 => format!("\x1b[1;31merror[{n}]\x1b[0m: \x1b[1mmismatched types\x1b[0m {EVIL}\n"),
                1 => format!("   \x1b[1;32mCompiling\x1b[0m helios v0.1.{n}\n"),
                _ => format!("line {n} of the build: cc -O2 -c src/file{n}.c -o file{n}.o\n"),
            };
            let channel = if n % 5 == 0 { Channel::Stderr } else { Channel::Stdout };
            log.output(n, 1, channel, now_ms(), text.as_bytes()).unwrap();
        }
        log.end_step(1).unwrap();
        log.system(1, "Process ended with exit code 2").unwrap();
        log.sync().await.unwrap();
        log.seal().await.unwrap();
        let end = AttemptEnd::Result {
            result: JobResult::Failure,
            message: format!("step 2 failed {EVIL}"),
        };
        self.store.end_attempt(attempt, epoch, end, 3).await.unwrap();
        (attempt, job)
    }

    /// One request through the whole router.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self
            .router
            .clone()
            .oneshot(request.body(Body::from(body.to_owned())).unwrap())
            .await
            .unwrap();
        let (parts, body) = answer.into_parts();
        let body = to_bytes(body, 64 << 20).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    pub async fn as_admin(&self, method: Method, path: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {}", self.token.expose());
        self.send(
            method,
            path,
            &[("authorization", &bearer), ("content-type", "application/json")],
            body,
        )
        .await
    }

    /// Logs in through the form; returns the session's cookie.
    pub async fn login(&self) -> String {
        let form = self.get("/login").await;
        let cookie = set_cookie(&form, "helios-login");
        let csrf = between(&form.body, "name=\"csrf\" value=\"", "\"");
        let body = format!("csrf={csrf}&token={}&return_to=%2F", self.token.expose());
        let headers = [("cookie", cookie.as_str()), ("origin", ORIGIN), ("content-type", FORM)];
        let answer = self.send(Method::POST, "/login", &headers, &body).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        set_cookie(&answer, "helios")
    }
}

pub const FORM: &str = "application/x-www-form-urlencoded";

/// `name=value` of a cookie that an answer sets.
pub fn set_cookie(answer: &Answer, name: &str) -> String {
    let prefix = format!("{name}=");
    answer
        .headers
        .get_all("set-cookie")
        .iter()
        .map(|v| v.to_str().unwrap())
        .find(|v| v.starts_with(&prefix))
        .unwrap_or_else(|| panic!("no cookie {name}"))
        .split(';')
        .next()
        .unwrap()
        .to_owned()
}

pub fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let start = text.find(before).unwrap_or_else(|| panic!("{before} is not in {text}")) + before.len();
    &text[start..start + text[start..].find(after).unwrap()]
}

/// Makes a trigger and plans it.
pub async fn plan(store: &Store, trigger: &Trigger, jobs: &[(&str, &str)]) -> Made {
    let size = Size {
        cpus: 2,
        memory_mib: 2048,
        disk_gib: None,
    };
    let jobs: Vec<PlannedJob> = jobs
        .iter()
        .map(|(id, name)| {
            if *id == "test" {
                job(id, name, &["build"])
            } else {
                job(id, name, &[])
            }
        })
        .collect();
    let requirement = JobRequirement {
        label: "helios".parse().unwrap(),
        size,
        class: "helios".into(),
    };
    let requirements = jobs.iter().map(|_| requirement.clone()).collect();
    let plan = Plan {
        version: PLAN_VERSION,
        path: ".helios/workflows/ci.yml".into(),
        name: "ci".into(),
        env: vec![],
        jobs,
    };
    outcome(
        store,
        trigger,
        Ok(PlannedRun {
            plan,
            jobs: requirements,
        }),
    )
    .await
}

/// Makes a trigger whose workflow file is broken.
pub async fn broken(store: &Store, trigger: &Trigger) -> Made {
    let diagnostic = Diagnostic {
        file: ".helios/workflows/ci.yml".into(),
        line: 2,
        column: 7,
        message: format!("`runs_on` is not known here {EVIL}"),
        help: Some("did you mean `runs-on`?".into()),
        ..Diagnostic::default()
    };
    outcome(store, trigger, Err(vec![diagnostic])).await
}

async fn outcome(store: &Store, trigger: &Trigger, plan: Result<PlannedRun, Vec<Diagnostic>>) -> Made {
    let id = store.create_trigger(trigger, "test").await.unwrap();
    let claimed = store
        .claim_trigger(&node(), Duration::from_secs(60))
        .await
        .unwrap()
        .unwrap();
    let run = NewRun {
        path: ".helios/workflows/ci.yml".into(),
        name: "ci".into(),
        source: "jobs:\n  b: { runs_on: <img src=x> }\n".into(),
        plan,
    };
    let planned = TriggerOutcome::Planned {
        commit: COMMIT.parse().unwrap(),
        title: trigger.title.clone(),
        runs: vec![run],
    };
    let runs = store
        .finish_trigger(claimed.id, claimed.epoch, planned)
        .await
        .unwrap()
        .unwrap();
    let detail = store.run(runs[0]).await.unwrap().unwrap();
    let jobs = detail
        .attempts
        .iter()
        .flat_map(|a| a.jobs.iter().map(|j| j.id))
        .collect();
    Made {
        trigger: id,
        run: runs[0],
        jobs,
    }
}
