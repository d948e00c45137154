//! What each port promises, proved on the real systems that `embedded` starts.

mod revocations;
