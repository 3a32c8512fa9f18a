//! The forge as its callers meet it: over HTTP, with git, and as a program.

mod common;
mod forgejo;
mod github;
mod program;
