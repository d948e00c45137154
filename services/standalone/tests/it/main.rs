//! What all services have in common, seen from the one crate that knows them.

mod settings_page;
