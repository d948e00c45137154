//! Prints the definition of `MessagingCluster` as YAML, or with `values` the schema of the chart's values as JSON.

use std::{error::Error, io::Write as _};

fn main() -> Result<(), Box<dyn Error>> {
    let text = match std::env::args().nth(1).as_deref() {
        None => crds::schema::yaml()?,
        Some("values") => crds::values::json()?,
        Some(other) => return Err(format!("unknown argument {other}: `values` or nothing").into()),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
