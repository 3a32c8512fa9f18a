//! Transitions of states in SQL. What is legal stands in `model::state`; a statement that changes a state says
//! `state IN ({from})`, and [`transition_sql`] puts there those of the caller's states that may legally become the one it
//! names. So an illegal transition changes no row, provided that the statement sets just that state: the caller writes
//! both. One statement chooses between two (`machines::attempt_ended`), from states that may become either; one lets a
//! row stay in its state (`steps::update`). A test finds statements that set a state without a guard.

use crate::model::state::{AttemptState, IntakeState, JobState, MachineState, RunState, StepState};

/// A kind of state.
pub(in crate::store) trait State: Copy + PartialEq + 'static {
    /// Every state.
    const ALL: &'static [Self];
    /// The legal transitions.
    fn next(self) -> &'static [Self];
    /// The stored word.
    fn word(self) -> &'static str;
}

macro_rules! states {
    ($($name:ident),*) => {$(
        impl State for $name {
            const ALL: &'static [Self] = $name::ALL;
            fn next(self) -> &'static [Self] { $name::next(self) }
            fn word(self) -> &'static str { $name::as_str(self) }
        }
    )*};
}
states!(IntakeState, RunState, JobState, AttemptState, StepState, MachineState);

/// Every state that may legally become `to`.
pub(in crate::store) fn predecessors<S: State>(to: S) -> Vec<S> {
    S::ALL
        .iter()
        .copied()
        .filter(|from| from.next().contains(&to))
        .collect()
}

/// Completes a statement that sets the state of rows to `to`: `{from}` becomes those of `from` that may legally
/// become `to`. When none may, the list is the word of no state and the statement changes nothing.
pub(in crate::store) fn transition_sql<S: State>(sql: &str, from: &[S], to: S) -> String {
    let legal = from.iter().filter(|from| from.next().contains(&to));
    sql.replace("{from}", &quoted(legal.copied()))
}

/// Completes a statement that reads or changes rows in any of these states, but sets no state. Where an index holds living
/// rows alone, the statement says so in the index's words as well (`state <> 'gone'`): SQLite does not conclude it from a
/// list of states, and would read every row there ever was.
pub(in crate::store) fn states_sql<S: State>(sql: &str, states: impl IntoIterator<Item = S>) -> String {
    sql.replace("{from}", &quoted(states))
}

/// The states that are not terminal.
pub(in crate::store) fn live<S: State>() -> Vec<S> {
    S::ALL.iter().copied().filter(|s| !s.next().is_empty()).collect()
}

fn quoted<S: State>(states: impl IntoIterator<Item = S>) -> String {
    let list: Vec<String> = states.into_iter().map(|s| format!("'{}'", s.word())).collect();
    if list.is_empty() {
        "''".to_owned()
    } else {
        list.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<S: State + std::fmt::Debug>() {
        for to in S::ALL {
            for from in S::ALL {
                let sql = transition_sql("{from}", &[*from], *to);
                assert_eq!(
                    sql.contains(from.word()),
                    from.next().contains(to),
                    "{from:?} to {to:?}: {sql}"
                );
            }
            let terminal = S::ALL.iter().filter(|s| s.next().is_empty());
            let all = transition_sql("{from}", S::ALL, *to);
            for state in terminal {
                assert!(!all.contains(&format!("'{}'", state.word())), "{state:?} is terminal");
            }
        }
    }

    #[test]
    fn a_statement_makes_exactly_the_legal_transitions() {
        check::<IntakeState>();
        check::<RunState>();
        check::<JobState>();
        check::<AttemptState>();
        check::<StepState>();
        check::<MachineState>();
    }

    /// Whoever writes a statement that sets a state without [`transition_sql`] is found here.
    #[test]
    fn every_statement_that_sets_a_state_is_guarded() {
        let mut paths = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store")];
        let mut seen = 0;
        while let Some(path) = paths.pop() {
            if path.is_dir() {
                // The tests set what they need.
                if !path.ends_with("tests") {
                    paths.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
                }
                continue;
            }
            if path.extension().is_none_or(|e| e != "rs") || path.ends_with("transitions.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for (at, _) in text.match_indices("UPDATE ") {
                let statement = text[at..].split('"').next().unwrap();
                let table = statement.split_whitespace().nth(1).unwrap_or("");
                let sets = statement.split("WHERE").next().unwrap();
                // A report's state is what the forge is to show, and not the state of a row.
                if table != "reports" && (sets.contains("SET state") || sets.contains(", state =")) {
                    assert!(
                        statement.contains("state IN ({from})"),
                        "{}: {statement}",
                        path.display()
                    );
                    seen += 1;
                }
            }
        }
        assert!(
            seen >= 8,
            "only {seen} statements found; the test looks for the wrong words"
        );
    }
}
