//! Patterns of principals (`who`): literals, `*`, `{namespace}` and `{service}`.
//!
//! Pure. Invariant: the character after a placeholder is none that the placeholder could take, so
//! there is one way to match.

use std::fmt;

use thiserror::Error;
use waypost_core::model::Name;

use super::is_in_name;
use crate::policy::principal::{InvalidPrincipal, Principal};

/// A pattern of principals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct PrincipalPattern {
    text: Principal,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    Any,
    Namespace,
    Service,
}

/// The parts of a principal that `{namespace}` and `{service}` took. Not checked yet: see
/// [`are_names`](Self::are_names).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::policy) struct Captures<'a> {
    pub(in crate::policy) namespace: Option<&'a str>,
    pub(in crate::policy) service: Option<&'a str>,
}

/// The text is not a pattern of principals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(in crate::policy) enum PatternError {
    #[error("{0}")]
    Invalid(#[from] InvalidPrincipal),
    #[error("has a brace, which is for {{namespace}} and {{service}} alone")]
    UnknownPlaceholder,
    #[error(
        "has a placeholder before a letter, a digit, '.', '_', '-' or another placeholder: it \
         takes all of these, so nothing would be left to match"
    )]
    Undelimited,
    #[error("captures {{namespace}} or {{service}} twice")]
    CapturedTwice,
}

impl PrincipalPattern {
    pub(in crate::policy) fn parse(text: &str) -> Result<Self, PatternError> {
        let principal = Principal::parse(text)?;
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some(start) = rest.find(['*', '{', '}']) {
            let (literal, placeholder) = rest.split_at(start);
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.into()));
            }
            let (piece, length) = placeholder_of(placeholder)?;
            rest = &placeholder[length..];
            if rest
                .bytes()
                .next()
                .is_some_and(|next| is_in_name(next) || matches!(next, b'*' | b'{'))
            {
                return Err(PatternError::Undelimited);
            }
            if piece != Piece::Any && pieces.contains(&piece) {
                return Err(PatternError::CapturedTwice);
            }
            pieces.push(piece);
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.into()));
        }
        Ok(Self { text: principal, pieces })
    }

    /// Matches a principal; `None` if it does not fit.
    pub(in crate::policy) fn captures<'a>(&self, principal: &'a str) -> Option<Captures<'a>> {
        let (mut captures, mut rest) = (Captures::default(), principal);
        for piece in &self.pieces {
            if let Piece::Literal(literal) = piece {
                rest = rest.strip_prefix(&**literal)?;
                continue;
            }
            let end = rest.bytes().position(|byte| !is_in_name(byte)).unwrap_or(rest.len());
            let (taken, after) =
                rest.split_at_checked(end).filter(|(taken, _)| !taken.is_empty())?;
            match piece {
                Piece::Namespace => captures.namespace = Some(taken),
                Piece::Service => captures.service = Some(taken),
                Piece::Literal(_) | Piece::Any => {}
            }
            rest = after;
        }
        rest.is_empty().then_some(captures)
    }

    pub(in crate::policy) fn as_str(&self) -> &str {
        self.text.as_str()
    }

    /// Returns the only principal that fits, if the pattern has no placeholder.
    pub(in crate::policy) fn literal(&self) -> Option<&Principal> {
        let is_literal = |piece: &Piece| matches!(piece, Piece::Literal(_));
        self.pieces.iter().all(is_literal).then_some(&self.text)
    }

    pub(in crate::policy) fn has_namespace(&self) -> bool {
        self.pieces.contains(&Piece::Namespace)
    }

    pub(in crate::policy) fn has_service(&self) -> bool {
        self.pieces.contains(&Piece::Service)
    }
}

impl fmt::Display for PrincipalPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Captures<'_> {
    /// Returns whether each capture is a valid name. Otherwise the rule does not hold.
    pub(in crate::policy) fn are_names(&self) -> bool {
        let all = [self.namespace, self.service];
        all.into_iter().flatten().all(|text| text.parse::<Name>().is_ok())
    }
}

/// Reads the placeholder at the start of a text, and its length.
fn placeholder_of(text: &str) -> Result<(Piece, usize), PatternError> {
    let all = [("*", Piece::Any), ("{namespace}", Piece::Namespace), ("{service}", Piece::Service)];
    all.into_iter()
        .find(|(placeholder, _)| text.starts_with(placeholder))
        .map(|(placeholder, piece)| (piece, placeholder.len()))
        .ok_or(PatternError::UnknownPlaceholder)
}
