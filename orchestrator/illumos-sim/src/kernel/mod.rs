//! The kernel's side of the model: where guests are real, links, addresses and filter rules are real too,
//! made from what the commands stored, so that a forgotten property changes what a guest can do.

pub mod filter;
pub mod links;

use std::{
    fs,
    io::{self, Write},
    process::{Command, Stdio},
};

use crate::state::State;

/// Makes the kernel follow the model. Does nothing on a host whose guests are modelled.
///
/// # Errors
/// A link of the model has no counterpart, or `ip`, `nft` or a setting of the kernel fails.
pub fn follow(before: &State, after: &State) -> io::Result<()> {
    if after.real.is_none() {
        return Ok(());
    }
    let was = before.real.is_some().then_some(before);
    if was.is_none() {
        prepare()?;
    }
    let change = links::change(was, after).map_err(io::Error::other)?;
    feed("ip", &["-batch", "-"], &change.lines)?;
    for (link, on) in &change.forwarding {
        set(&format!("ipv4/conf/{link}/forwarding"), if *on { "1" } else { "0" })?;
    }
    let rules = filter::rules(after).map_err(io::Error::other)?;
    if was.is_none_or(|before| filter::rules(before).is_ok_and(|old| old != rules)) {
        feed("nft", &["-f", "-"], &rules)?;
    }
    Ok(())
}

/// What differs between the two kernels whatever the model says: illumos answers for any of its addresses on
/// any link and checks no source; a host has no IPv6 address unless it was given one.
fn prepare() -> io::Result<()> {
    // A machine's own network would not survive this.
    if fs::read_to_string("/proc/net/route")?.lines().count() > 1 {
        return Err(io::Error::other(
            "real guests need a network namespace of their own, and this one has routes",
        ));
    }
    for which in ["all", "default"] {
        set(&format!("ipv4/conf/{which}/rp_filter"), "0")?;
        set(&format!("ipv6/conf/{which}/disable_ipv6"), "1")?;
    }
    // A bridge stands for a switch: what crosses it never meets the host's own filter.
    set("bridge/bridge-nf-call-iptables", "0")?;
    feed("ip", &["-batch", "-"], "link set lo up\n")
}

/// Writes a setting of the network; one that this kernel lacks is off.
fn set(name: &str, value: &str) -> io::Result<()> {
    match fs::write(format!("/proc/sys/net/{name}"), value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), format!("net/{name}: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// Runs a program that reads its commands from standard input; nothing to say is nothing to run.
fn feed(program: &str, args: &[&str], lines: &str) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut child = Command::new(program)
        .args(args)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(lines.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program}: {}: {lines}", said.trim())))
}
