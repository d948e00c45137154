//! Lengths of time: as a spec writes them, within their bounds, and as a process reads them.

use std::{ops::RangeInclusive, time::Duration};

use super::faults::Faults;

/// Reads a length of time such as `90s` or `1h30m`; one outside of its bounds is a fault.
pub(super) fn read(faults: &mut Faults, path: &str, text: &str, bounds: &RangeInclusive<Duration>) -> Option<Duration> {
    let time = humantime::parse_duration(text).ok().filter(|time| bounds.contains(time));
    if time.is_none() {
        let (least, most) = (write(*bounds.start()), write(*bounds.end()));
        faults
            .spec(path, format_args!("{text:?} is not a length of time from {least} to {most}, such as 90s or 1h30m"));
    }
    time
}

/// Writes a length of time in the largest unit that it is a whole number of; not finer than milliseconds.
pub(crate) fn write(time: Duration) -> String {
    let millis = time.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis > 0 && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_the_same() {
        for (text, written) in [("90s", "90s"), ("1h30m", "90m"), ("24h", "1d"), ("1500ms", "1500ms"), ("60s", "1m")] {
            let time = humantime::parse_duration(text).unwrap();
            assert_eq!(write(time), written);
            assert_eq!(humantime::parse_duration(written).unwrap(), time);
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_a_fault_that_names_the_bounds() {
        let bounds = Duration::from_secs(1)..=Duration::from_mins(10);
        let mut faults = Faults::default();
        assert_eq!(read(&mut faults, "spec.x", "10m", &bounds), Some(Duration::from_mins(10)));
        for wrong in ["999ms", "10m1s", "soon", "999999999d999999999d"] {
            assert_eq!(read(&mut faults, "spec.x", wrong, &bounds), None, "{wrong}");
        }
        let invalid = faults.or_else_invalid(Some(())).unwrap_err();
        assert_eq!(invalid.faults.len(), 4);
        assert!(invalid.faults[0].message.contains("from 1s to 10m"), "{invalid}");
    }
}
