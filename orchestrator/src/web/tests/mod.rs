//! The whole router against a real store and real logs, in temporary places.

mod access;
mod deliveries;
mod fixture;
mod html;
mod keep;
mod login_link;
mod logs;
mod status;
