//! What happens to an attempt, and what is done about it.

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The agent joined for the first time.
    AgentReady,
    /// A connection was made (also the first).
    Connected,
    /// A running command wrote something.
    Output {
        /// Which.
        exec: u64,
    },
    /// A command's leader ended.
    Exited {
        /// Which.
        exec: u64,
        /// Exit code, or the signal that ended it.
        how: Exit,
        /// It has left something running.
        survivors: bool,
    },
    /// What steps had left running is ended.
    Cleared {
        /// By which command.
        exec: u64,
    },
    /// The agent could not carry out a command.
    Refused {
        /// Which.
        exec: u64,
        /// Its words.
        message: String,
    },
    /// Time passed.
    Elapsed {
        /// How much, in milliseconds.
        ms: u64,
        /// Whether the agent was connected.
        connected: bool,
    },
    /// A person asks for the end; the second request forces.
    Cancel {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// At once.
        force: bool,
    },
    /// The machine or something of ours failed.
    Lost {
        /// How.
        cause: String,
    },
    /// The machine is gone because somebody in it killed its agent.
    AgentKilled {
        /// How.
        how: String,
    },
}

/// The end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The attempt is running: tell the store.
    Running,
    /// Store the record of a step.
    StoreStep(usize),
    /// A line of ours in the log of a step.
    Log(usize, String),
    /// The step's output is complete.
    EndStepLog(usize),
    /// Store the checkpoint before anything that follows.
    Checkpoint,
    /// Send the running command.
    Send,
    /// Send the stop that `running` names.
    SendStop,
    /// Send the command of the phase that clears.
    SendClear,
    /// It is over: see the phase.
    End,
}
