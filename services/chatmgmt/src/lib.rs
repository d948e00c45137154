//! chatmgmt
