//! What runs inside the guest: our code, with the real `zfs` and `zpool` at their usual places.

mod answers;
mod fixture;
mod golden;
mod killed;
mod links;
mod machines;
mod tree;
