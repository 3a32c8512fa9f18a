//! What `make demo KEEP=1` says at its end: where to look, how to log in, to push and to stop.

use std::path::Path;

use helios_fakeforge::FakeForge;

use crate::support::{World, helios_ci};

/// Says all of it.
pub fn say(world: &World) {
    let dir = world.dir.path();
    let program = format!("{} --config {}", helios_ci().display(), world.config().display());
    println!("  look       {}/            all runs", world.url());
    let made = world.cli(&["login-link"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    println!("  log in     {}", String::from_utf8_lossy(&made.stdout).trim());
    println!("             The link works once, for 10 minutes. Another:");
    println!("             {program} login-link");
    println!("  push       Paste this into another terminal:");
    for command in push_commands(&world.forge, world.repository, dir).expect("what a push needs") {
        println!("             {command}");
    }
    println!("  follow     {program} runs");
    println!("  stop       Ctrl-C here, or: kill {}", std::process::id());
    println!("             All of it is removed then, the clone, too.");
}

/// Commands that clone the repository below `dir`, change it and push, for any shell, as they are. The clone includes a
/// configuration that is made here: it has a name to commit under, takes no proxy, and finds the token in a file, so
/// that none stands in a command or an address.
///
/// # Errors
/// When the repository does not exist, or the files cannot be written.
pub fn push_commands(forge: &FakeForge, repository: i64, dir: &Path) -> Result<Vec<String>, helios_fakeforge::Error> {
    let (settings, credentials, clone) = (dir.join("gitconfig"), dir.join("git-credentials"), dir.join("clone"));
    let token = forge.create_token("you", true);
    let address = forge.url().replacen("://", &format!("://you:{token}@"), 1);
    helios_fakeforge::write_private(&credentials, &format!("{address}\n"))?;
    // The empty helper drops those of the person's own settings, which could ask or keep what is for once.
    let text = format!(
        "[user]\n\tname = You\n\temail = you@localhost\n[commit]\n\tgpgSign = false\n[http]\n\tproxy =\n[credential]\n\thelper =\n\thelper = store --file={}\n",
        credentials.display()
    );
    helios_fakeforge::write_private(&settings, &text)?;
    Ok(vec![
        format!(
            "git clone -c include.path={} {} {}",
            settings.display(),
            forge.clone_url(repository)?,
            clone.display()
        ),
        format!("cd {}", clone.display()),
        "echo 'int answer = 42;' >>src/engine.c".to_owned(),
        "git commit -a -m 'My own change'".to_owned(),
        "git push".to_owned(),
    ])
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use helios_fakeforge::{Kind, Options};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    #[allow(clippy::disallowed_methods, reason = "a person pastes this into a shell")]
    async fn what_it_says_of_pushing_works_as_it_stands() {
        let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let forge = FakeForge::start(Options::default()).await.unwrap();
        let repository = forge
            .create_repository(Kind::Forgejo, "ada/engine", false)
            .await
            .unwrap();
        let files = [("src/engine.c", b"int main;\n", 0o644)];
        let first = forge.push(repository, "main", &files, "Begin").await.unwrap();
        let commands = push_commands(&forge, repository, dir.path()).unwrap();

        // A person who never used git here, and whose own helper would be in the way.
        std::fs::write(
            home.path().join(".gitconfig"),
            "[credential]\n\thelper = !echo quit=1; false\n",
        )
        .unwrap();
        let script = commands.join("\n");
        let pasted = tokio::task::spawn_blocking({
            let home = home.path().to_owned();
            move || {
                Command::new("sh")
                    .args(["-e", "-c", &script])
                    .env("HOME", &home)
                    .env("GIT_TERMINAL_PROMPT", "0")
                    .env("http_proxy", "http://127.0.0.1:9")
                    .env_remove("no_proxy")
                    .current_dir(&home)
                    .output()
            }
        });
        let output = pasted.await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{commands:#?}\n{said}");

        let bare = forge.repository_dir(repository).unwrap();
        let git = |args: &[&str]| {
            let output = Command::new("git").arg("-C").arg(&bare).args(args).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        assert_eq!(git(&["rev-parse", "main^"]), first, "one commit more");
        assert_eq!(git(&["log", "-1", "--format=%an %s", "main"]), "You My own change");
        assert!(git(&["show", "main:src/engine.c"]).contains("int answer = 42;"));
        // Nobody but the person may read the token, and it stands in no command.
        let token = std::fs::read_to_string(dir.path().join("git-credentials")).unwrap();
        let secret = token.split(['@', ':']).nth(2).unwrap();
        assert!(!commands.concat().contains(secret) && !said.contains(secret));
        assert!(crate::support::is_private(&dir.path().join("git-credentials")));
    }
}
