//! One hostile request, and what has to come of it.

/// The response to a caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// One response, after which the connection was closed or the stream ended.
    Answered(u16),
    /// More than one response to one request: the status of the last.
    AnsweredAgain(u16),
    /// The end without a response.
    Cut,
    /// Neither.
    Open,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expected {
    /// A response with this status, and nothing after it.
    Status(u16),
    /// An error response, or none, and the end of the connection.
    Refused,
    /// The same, when the instance may have seen how the body began.
    BodyCut,
}

impl Expected {
    pub fn covers(self, outcome: Outcome) -> bool {
        match (self, outcome) {
            (Self::Status(expected), Outcome::Answered(status)) => expected == status,
            (Self::Refused | Self::BodyCut, Outcome::Answered(status)) => status >= 400,
            (Self::Refused | Self::BodyCut, Outcome::Cut) => true,
            _ => false,
        }
    }
}

pub struct Case {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub expected: Expected,
}

impl Case {
    pub fn new(name: &'static str, bytes: impl Into<Vec<u8>>, expected: Expected) -> Self {
        Self { name, bytes: bytes.into(), expected }
    }

    /// True where the bytes are HTTP/2.
    pub fn multiplexed(&self) -> bool {
        self.bytes.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    }
}
