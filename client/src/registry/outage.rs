//! Outages of the registry, or of the disk, so that each is logged once however many attempts fail
//! in it. Pure.

/// The outage state of one task.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    lasts: bool,
}

impl Outage {
    /// Takes note of a failure. Returns whether it is the first of an outage.
    pub(crate) fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.lasts, true)
    }

    /// Takes note of a success. Returns whether it ends an outage.
    pub(crate) fn end(&mut self) -> bool {
        std::mem::take(&mut self.lasts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outage_is_reported_once_at_its_start_and_end() {
        let mut outage = Outage::default();
        assert!(!outage.end());
        assert!(outage.begin());
        assert!(!outage.begin());
        assert!(outage.end());
        assert!(!outage.end());
        assert!(outage.begin());
    }
}
