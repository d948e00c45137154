//! The platform on a real cluster, end to end: a driver outside, and people who talk in a pod.

pub mod drive;
mod figures;
mod kube;
mod messages;
mod platform;
mod steps;
pub mod talk;
