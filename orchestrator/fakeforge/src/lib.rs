//! A small local forge for the demo and the tests.
