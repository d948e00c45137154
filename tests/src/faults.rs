//! Faults on purpose: a system with a proxy on every edge, people who use it, rows of faults, and what they showed.

pub mod load;
pub mod mutant;
pub mod proxy;
pub mod random;
pub mod repeat;
pub mod rig;
pub mod row;
pub mod run;
pub mod store;
pub mod truth;
