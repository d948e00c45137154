//! The whole platform from outside.

mod tidy;
