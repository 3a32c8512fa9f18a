//! The words that zonecfg's language consists of, and what it prints of their use.

/// The first word of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Opens a resource, or adds to a property of the open one.
    Add,
    /// Leaves the open resource as it was.
    Cancel,
    /// Takes a property back.
    Clear,
    /// Writes the configuration.
    Commit,
    /// Begins a configuration.
    Create,
    /// Removes the zone.
    Delete,
    /// Takes the open resource over.
    End,
    /// Leaves the program.
    Exit,
    /// Prints commands that make the configuration again.
    Export,
    /// Prints the commands.
    Help,
    /// Prints the configuration for people.
    Info,
    /// Removes a resource, or from a property of the open one.
    Remove,
    /// Goes back to what was committed.
    Revert,
    /// Opens a resource that is there.
    Select,
    /// Sets a property.
    Set,
    /// Checks the configuration.
    Verify,
}

const VERBS: &[(Verb, &str, &str)] = &[
    (
        Verb::Add,
        "add",
        "add <resource-type>\n\t(global scope)\nadd <property-name> <property-value>\n\t(resource scope)",
    ),
    (Verb::Cancel, "cancel", "cancel"),
    (Verb::Clear, "clear", "clear <property-name>"),
    (Verb::Commit, "commit", "commit"),
    (Verb::Create, "create", "create [-F] [ -a <path> | -b | -t <template> ]"),
    (Verb::Delete, "delete", "delete [-F]"),
    (Verb::End, "end", "end"),
    (Verb::Exit, "exit", "exit [-F]"),
    (Verb::Export, "export", "export [-f output-file]"),
    (Verb::Help, "help", "help [commands] [syntax] [usage] [<command-name>]"),
    (
        Verb::Info,
        "info",
        "info [<resource-type> [property-name=property-value]*]",
    ),
    (
        Verb::Remove,
        "remove",
        "remove [-F] <resource-type> [ <property-name>=<property-value> ]*\n\t(global scope)\n\
         remove <property-name> <property-value>\n\t(resource scope)",
    ),
    (Verb::Revert, "revert", "revert [-F]"),
    (
        Verb::Select,
        "select",
        "select <resource-type> { <property-name>=<property-value> }",
    ),
    (Verb::Set, "set", "set <property-name>=<property-value>"),
    (Verb::Verify, "verify", "verify"),
];

impl Verb {
    /// The verb that a text begins with, and its length there.
    #[must_use]
    pub fn at(text: &str) -> Option<(Self, usize)> {
        if text.starts_with('?') {
            return Some((Self::Help, 1));
        }
        let (verb, word, _) = VERBS.iter().find(|(_, word, _)| text.starts_with(word))?;
        Some((*verb, word.len()))
    }

    fn row(self) -> &'static (Self, &'static str, &'static str) {
        VERBS
            .iter()
            .find(|(verb, ..)| *verb == self)
            .expect("each verb has its row")
    }

    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.row().1
    }

    /// How it is used.
    #[must_use]
    pub fn usage(self) -> &'static str {
        self.row().2
    }
}

/// What follows a syntax error, and what `help` prints.
#[must_use]
pub fn commands() -> String {
    let rows: Vec<&str> = VERBS.iter().map(|(.., usage)| *usage).collect();
    format!("Commands:\n\n{}\n", rows.join("\n"))
}

/// Kinds of resources.
pub const RESOURCES: &[&str] = &[
    "fs",
    "net",
    "device",
    "rctl",
    "attr",
    "dataset",
    "dedicated-cpu",
    "capped-cpu",
    "capped-memory",
    "admin",
    "security-flags",
];

/// Properties of the zone and of resources.
pub const PROPERTIES: &[&str] = &[
    "zonename",
    "zonepath",
    "brand",
    "autoboot",
    "ip-type",
    "pool",
    "limitpriv",
    "bootargs",
    "type",
    "value",
    "options",
    "allowed-address",
    "address",
    "physical",
    "defrouter",
    "mac-addr",
    "vlan-id",
    "global-nic",
    "property",
    "dir",
    "special",
    "raw",
    "name",
    "match",
    "priv",
    "limit",
    "action",
    "ncpus",
    "locked",
    "swap",
    "importance",
    "cpu-shares",
    "max-lwps",
    "max-processes",
    "max-shm-memory",
    "max-shm-ids",
    "max-msg-ids",
    "max-sem-ids",
    "scheduling-class",
    "hostid",
    "user",
    "auths",
    "fs-allowed",
    "default",
    "lower",
    "upper",
    "zfs-io-priority",
];

/// Properties of the zone itself that are texts, in the order of `info`.
pub const TEXTS: &[&str] = &[
    "zonename",
    "zonepath",
    "brand",
    "autoboot",
    "bootargs",
    "pool",
    "limitpriv",
    "scheduling-class",
    "ip-type",
    "hostid",
    "fs-allowed",
];

/// Properties of the zone itself that stand for a resource control, in the order of `info`.
pub const CONTROLS: &[&str] = &[
    "max-lwps",
    "max-processes",
    "max-shm-memory",
    "max-shm-ids",
    "max-msg-ids",
    "max-sem-ids",
    "cpu-shares",
    "zfs-io-priority",
];

/// Whether a property is the zone's own: what `set` takes outside a resource.
pub fn is_global(name: &str) -> bool {
    TEXTS.contains(&name) || CONTROLS.contains(&name)
}

/// What follows the use of `add`, `remove` and `select`.
#[must_use]
pub fn resources() -> String {
    format!("<resource type> := {}\n", RESOURCES.join(" | "))
}

/// What follows a name that can be no zone's.
pub const ZONE_NAMES: &str = "\n<zone> := [A-Za-z0-9][A-Za-z0-9_.-]*\n\
    \t(except the reserved words 'global' and anything starting with 'SUNW')\n\
    \tName must be less than 64 characters.\n";

/// What follows a name of a command that there is none of.
pub const HELP: &str = "More help is available for the following:\n\n\tcommands ('help commands')\n\
    \tsyntax ('help syntax')\n\tusage ('help usage')\n\n\
    You may also obtain help on any command by typing 'help <command-name>.'\n";

/// How the program is called.
pub const USAGE: &str = "usage:\tzonecfg help\n\tzonecfg -z <zone>\t\t\t(interactive)\n\
    \tzonecfg -z <zone> <command>\n\tzonecfg -z <zone> -f <command-file>\n";

/// What `help` prints, on which of the two outputs.
///
/// # Errors
/// There is no help on this, which is no error of the program.
pub fn help(subject: Option<&str>) -> Result<String, String> {
    match subject {
        None | Some("commands") => Ok(commands()),
        Some("usage") => Ok(USAGE.to_owned()),
        Some("syntax") => Ok(format!("{}\n{}", ZONE_NAMES.trim_start(), resources())),
        Some("-?") => Ok(format!("usage:\n{}\n", Verb::Help.usage())),
        Some(word) => match VERBS.iter().find(|(_, verb, _)| *verb == word) {
            Some((.., usage)) => Ok(format!("usage:\n{usage}\n")),
            None => Err(format!("Unknown help subject {word}.  {HELP}")),
        },
    }
}
