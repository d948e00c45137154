//! One cluster: from what a team asks for to the objects that run it.

pub mod build;
pub mod validate;
