//! What makes a workflow valid beyond its shape: ids, the graph of `needs`, filters, times, inputs, actions, shells.
//! They look only at what has the right form; the strict walk has complained about the rest.

mod cron;
mod events;
mod ids;
mod jobs;
mod matrix;
mod steps;
#[cfg(test)]
mod tests;

pub(super) use events::check as events;
pub(super) use jobs::check as jobs;
