//! Access in a simulated world: `rules` is the true state of a policy, `tokens` what hosts prove
//! their names with, `subject` what readers watch.

mod rules;
mod subject;
mod tokens;

pub use rules::AccessRules;
pub(crate) use rules::{INTRUDER_SERVICE, LEASED, PROBES, VisibleServices};
pub(crate) use subject::ServiceName;
pub use subject::Subject;
pub(crate) use tokens::{
    INTRUDER_TOKEN, RECORDER_TOKEN, VIEWER_TOKEN, authorization, reader_token, service_token, token,
};
