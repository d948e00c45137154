//! One cluster: from what a team asks for to the objects that run it.

pub mod apply;
pub mod build;
pub mod delete;
pub mod fetch;
pub mod pass;
pub mod plan;
pub mod rollout;
pub mod status;
pub mod validate;
