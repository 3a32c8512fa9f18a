//! The whole router against a real store and real logs, in temporary places.

mod access;
mod fixture;
mod html;
mod keep;
mod logs;
mod status;
