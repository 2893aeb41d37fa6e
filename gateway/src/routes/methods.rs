//! Which methods a route is for.

use http::Method;

/// The methods that a route is for.
///
/// ```
/// use http::Method;
/// use waypost_gateway::routes::Methods;
///
/// assert!(Methods::All.contain(&Method::PATCH));
/// assert!(!Methods::These(vec![Method::GET]).contain(&Method::HEAD));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Methods {
    /// All that any route passes on: `GET`, `HEAD`, `POST`, `PUT`, `PATCH`, `DELETE` and `OPTIONS`. The
    /// default.
    #[default]
    All,
    /// These, and no others. May name others than those seven, but not `CONNECT` and `TRACE`.
    These(Vec<Method>),
}

impl Methods {
    /// Whether `method` is one of them.
    #[must_use]
    pub fn contain(&self, method: &Method) -> bool {
        match self {
            Self::All => true,
            Self::These(methods) => methods.contains(method),
        }
    }

    /// Whether a method is one of both.
    #[must_use]
    pub fn overlap(&self, other: &Self) -> bool {
        match self {
            Self::All => match other {
                Self::All => true,
                Self::These(methods) => !methods.is_empty(),
            },
            Self::These(methods) => methods.iter().any(|method| other.contain(method)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_overlap_where_one_is_in_both() {
        let reads = Methods::These(vec![Method::GET, Method::HEAD]);
        let heads = Methods::These(vec![Method::POST, Method::HEAD]);
        let posts = Methods::These(vec![Method::POST]);
        let none = Methods::These(vec![]);
        for (one, other, expected) in [
            (&reads, &heads, true),
            (&heads, &posts, true),
            (&reads, &posts, false),
            (&reads, &Methods::All, true),
            (&none, &Methods::All, false),
            (&Methods::All, &Methods::All, true),
        ] {
            assert_eq!(one.overlap(other), expected, "{one:?} {other:?}");
            assert_eq!(other.overlap(one), expected, "{other:?} {one:?}");
        }
    }
}
