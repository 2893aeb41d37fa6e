//! The methods of a route. Pure.

use http::Method;

/// The methods of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Methods {
    /// `GET`, `HEAD`, `POST`, `PUT`, `PATCH`, `DELETE` and `OPTIONS`, which every route can pass
    /// on. The default.
    #[default]
    All,
    /// Only the listed ones. They may be others than those seven, but not `CONNECT` and `TRACE`.
    These(Vec<Method>),
}

impl Methods {
    /// Returns true for one of the methods.
    pub(crate) fn contain(&self, method: &Method) -> bool {
        match self {
            Self::All => true,
            Self::These(methods) => methods.contains(method),
        }
    }

    /// Returns true where both have a method in common.
    pub(crate) fn overlap(&self, other: &Self) -> bool {
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
