//! `limitpriv`: which sets of privileges a zone may be limited to; and security flags.

use std::collections::BTreeSet;

const PRIVILEGES: &[&str] = &[
    "contract_event",
    "contract_identity",
    "contract_observer",
    "cpc_cpu",
    "dtrace_kernel",
    "dtrace_proc",
    "dtrace_user",
    "file_chown",
    "file_chown_self",
    "file_dac_execute",
    "file_dac_read",
    "file_dac_search",
    "file_dac_write",
    "file_downgrade_sl",
    "file_flag_set",
    "file_link_any",
    "file_owner",
    "file_read",
    "file_setid",
    "file_upgrade_sl",
    "file_write",
    "graphics_access",
    "graphics_map",
    "ipc_dac_read",
    "ipc_dac_write",
    "ipc_owner",
    "net_access",
    "net_bindmlp",
    "net_icmpaccess",
    "net_mac_aware",
    "net_mac_implicit",
    "net_observability",
    "net_privaddr",
    "net_rawaccess",
    "proc_audit",
    "proc_chroot",
    "proc_clock_highres",
    "proc_exec",
    "proc_fork",
    "proc_info",
    "proc_lock_memory",
    "proc_owner",
    "proc_prioup",
    "proc_priocntl",
    "proc_secflags",
    "proc_session",
    "proc_setid",
    "proc_taskid",
    "proc_zone",
    "sys_acct",
    "sys_admin",
    "sys_audit",
    "sys_config",
    "sys_devices",
    "sys_dl_config",
    "sys_flow_config",
    "sys_ip_config",
    "sys_ipc_config",
    "sys_iptun_config",
    "sys_linkdir",
    "sys_mount",
    "sys_net_config",
    "sys_nfs",
    "sys_ppp_config",
    "sys_res_bind",
    "sys_res_config",
    "sys_resource",
    "sys_smb",
    "sys_suser_compat",
    "sys_time",
    "sys_trans_label",
    "virt_manage",
    "win_colormap",
    "win_config",
    "win_dac_read",
    "win_dac_write",
    "win_devices",
    "win_dga",
    "win_downgrade_sl",
    "win_fontpath",
    "win_mac_read",
    "win_mac_write",
    "win_selection",
    "win_upgrade_sl",
    "xvm_control",
];

const BASIC: &[&str] = &[
    "file_link_any",
    "file_read",
    "file_write",
    "net_access",
    "proc_exec",
    "proc_fork",
    "proc_info",
    "proc_secflags",
    "proc_session",
];

/// What the bhyve brand adds to the basic set.
const DEFAULT: &[&str] = &[
    "proc_clock_highres",
    "sys_admin",
    "sys_mount",
    "file_dac_read",
    "file_dac_search",
    "file_chown",
    "file_chown_self",
    "file_write",
    "file_dac_write",
    "file_owner",
    "file_link_any",
];

/// What the brand forbids, in the order they are looked for; the second column: only with a shared stack.
const PROHIBITED: &[(&str, bool)] = &[
    ("sys_ppp_config", true),
    ("virt_manage", false),
    ("xvm_control", false),
    ("sys_suser_compat", false),
    ("sys_res_config", false),
    ("sys_net_config", false),
    ("sys_linkdir", false),
    ("sys_ip_config", true),
    ("sys_devices", false),
    ("sys_config", false),
    ("proc_zone", false),
    ("dtrace_kernel", false),
];

/// What the brand needs.
const REQUIRED: &[&str] = &["sys_mount", "proc_exec"];

/// The privileges of one word of a list; none when it is no such word.
fn named(word: &str) -> Option<Vec<&'static str>> {
    let word = word.to_ascii_lowercase();
    match word.as_str() {
        "all" => Some(PRIVILEGES.to_vec()),
        "none" => Some(Vec::new()),
        "basic" => Some(BASIC.to_vec()),
        _ => {
            let name = word.strip_prefix("priv_").unwrap_or(&word);
            PRIVILEGES
                .iter()
                .find(|known| **known == name)
                .map(|known| vec![*known])
        }
    }
}

/// Checks `limitpriv`.
///
/// # Errors
/// The privilege that is unknown, prohibited, or required and missing.
pub fn check(limitpriv: &str, exclusive: bool) -> Result<(), String> {
    if limitpriv.is_empty() || limitpriv == "default" {
        return Ok(());
    }
    let mut set: BTreeSet<&str> = BTreeSet::new();
    // The brand's set is asked for by the first of several words, and the beginning of it is enough.
    let words = match limitpriv.split_once(',') {
        Some((first, rest)) if "default".starts_with(first) => {
            set.extend(BASIC.iter().chain(DEFAULT));
            if exclusive {
                set.insert("net_rawaccess");
            }
            rest
        }
        _ => limitpriv,
    };
    let words = || words.split(',').filter(|word| !word.is_empty());
    if words().any(|word| word == "zone") {
        return Err("zone".into());
    }
    for word in words() {
        let negated = word.strip_prefix(['!', '-']);
        let privileges = named(negated.unwrap_or(word)).ok_or_else(|| word.to_owned())?;
        match negated {
            None => set.extend(privileges),
            Some(_) => privileges.iter().for_each(|privilege| _ = set.remove(privilege)),
        }
    }
    let prohibited = PROHIBITED
        .iter()
        .find(|(name, shared_only)| set.contains(name) && !(*shared_only && exclusive));
    let missing = REQUIRED.iter().find(|name| !set.contains(*name));
    match (prohibited, missing) {
        (Some((name, _)), _) | (None, Some(name)) => Err((*name).to_owned()),
        (None, None) => Ok(()),
    }
}

const FLAGS: &[&str] = &["aslr", "forbidnullmap", "noexecstack"];
const ALL_FLAGS: u64 = u64::MAX;

/// A parsed list of security flags: the flags it assigns, and whether it is an assignment at all.
fn flags(text: &str) -> Result<(u64, bool), ()> {
    let (mut on, mut off, mut relative) = (0, 0, false);
    for word in text.split(',') {
        match word.to_ascii_lowercase().as_str() {
            "all" => on = ALL_FLAGS,
            "none" => off = ALL_FLAGS,
            "current" => relative = true,
            word => {
                let negated = word.strip_prefix(['-', '!']);
                let at = FLAGS
                    .iter()
                    .position(|flag| *flag == negated.unwrap_or(word))
                    .ok_or(())?;
                *(if negated.is_some() { &mut off } else { &mut on }) |= 1 << at;
            }
        }
    }
    Ok(if relative { (0, false) } else { (on & !off, true) })
}

/// What is wrong with the security flags of a zone, and whether any of it is an error.
#[must_use]
pub fn check_flags(default: &str, lower: &str, upper: &str) -> (Vec<String>, bool) {
    let (mut said, mut valid) = (Vec::new(), true);
    let mut parsed = [0, ALL_FLAGS, 0];
    let mut relative = Vec::new();
    // They are read in this order, and found to be relative in the other.
    for (at, (name, text)) in [("default", default), ("upper", upper), ("lower", lower)]
        .into_iter()
        .enumerate()
    {
        if text.is_empty() {
            continue;
        }
        let (assigned, absolute) = flags(text).unwrap_or_else(|()| {
            said.push(format!("{name} security flags '{text}' are invalid"));
            valid = false;
            (0, false)
        });
        parsed[at] = assigned;
        if !absolute {
            relative.push((name, text));
        }
    }
    relative.sort_by_key(|(name, _)| *name);
    for (name, text) in relative {
        said.push(format!("only assignment of security flags is allowed ({name}: {text})"));
    }
    let [default, upper, lower] = parsed;
    for (wrong, text) in [
        (default & !upper, "default secflags must be within the upper limit"),
        (lower & !default, "default secflags must be above the lower limit"),
        (lower & !upper, "lower secflags must be within the upper limit"),
    ] {
        if wrong != 0 {
            said.push(text.to_owned());
            valid = false;
        }
    }
    (said, valid)
}
