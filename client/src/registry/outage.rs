//! Whether the registry is out of reach for one of its users. Pure; it must never count one outage
//! twice, however many attempts fail in it.

/// An outage as one user of the registry sees it.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    lasts: bool,
}

impl Outage {
    /// An attempt failed. Whether that is news.
    pub(crate) fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.lasts, true)
    }

    /// An attempt did well. Whether that is news.
    pub(crate) fn end(&mut self) -> bool {
        std::mem::take(&mut self.lasts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outage_is_news_once_at_either_end() {
        let mut outage = Outage::default();
        assert!(!outage.end());
        assert!(outage.begin());
        assert!(!outage.begin());
        assert!(outage.end());
        assert!(!outage.end());
        assert!(outage.begin());
    }
}
