//! The table of access: what each method answers to each caller.
//!
//! Pure.

use tonic::Code;

/// The callers, in the order of the columns.
pub(super) const CALLERS: [&str; 13] = [
    "stranger",  // a token that does not exist, or a certificate that names no caller
    "anonymous", // may read the health
    "own",       // registers shop/orders, and sees its namespace
    "other",     // registers shop/payments, and sees its namespace
    "away",      // registers bank/ledger, and sees its namespace
    "one",       // sees shop/orders
    "space",     // sees shop/*
    "operator",  // operates shop/*
    "status",
    "backup",
    "all",
    "revoked",
    "expired",
];

/// The methods, each with its requests, and for each the answers in the order of [`CALLERS`]:
/// `ok`, and `pt` with only the visible part; `un`: OK, and the lease is unknown; `nf`: there is
/// none; `im`: no such method; `iv`: invalid; `em`: allowed, and the memory store has nothing to
/// copy; `no`: may not; `ho`: not at this host; `nc`: needs credentials; `st`, `rv`, `ex`: the
/// stranger's, the revoked and the expired credential does not hold.
#[rustfmt::skip]
pub(super) const TABLE: &[(&str, &[&str])] = &[
    //                                  str an ow ot aw on sp op st ba al rv ex
    ("waypost.v1.Registry/Register", &[
        "shop/orders at the caller     | st nc ok no no no no no no no ok rv ex",
        "shop/payments at the caller   | st nc no ok no no no no no no ok rv ex",
        "bank/ledger at the caller     | st nc no no ok no no no no no ok rv ex",
        "shop/orders at 10.9.9.9       | st nc ho no no no no no no no ok rv ex",
        "shop/orders at 169.254.169.254| st nc ho no no no no no no no ho rv ex",
        "shop/orders at 239.1.2.3      | st nc iv iv iv iv iv iv iv iv iv rv ex",
        "shop/orders at orders.shop.svc| st nc ho no no no no no no no ok rv ex",
    ]),
    ("waypost.v1.Registry/Heartbeat", &[
        "lease of shop/orders          | st nc ok un un un un un un un ok rv ex",
        "lease of bank/ledger          | st nc un un ok un un un un un ok rv ex",
        "lease of none                 | st nc un un un un un un un un un rv ex",
    ]),
    ("waypost.v1.Registry/KeepAlive", &[
        "lease of shop/orders          | st nc ok un un un un un un un ok rv ex",
        "lease of bank/ledger          | st nc un un ok un un un un un ok rv ex",
        "lease of none                 | st nc un un un un un un un un un rv ex",
    ]),
    ("waypost.v1.Registry/Update", &[
        "lease of shop/orders          | st nc ok nf nf nf nf nf nf nf ok rv ex",
        "lease of none                 | st nc nf nf nf nf nf nf nf nf nf rv ex",
        "shop/orders                   | st nc no no no no no ok no no ok rv ex",
        "shop/nothing                  | st nc no no no no no nf no no nf rv ex",
        "bank/ledger                   | st nc no no no no no no no no ok rv ex",
    ]),
    ("waypost.v1.Registry/Deregister", &[
        "lease of shop/orders          | st nc ok nf nf nf nf nf nf nf ok rv ex",
        "lease of none                 | st nc nf nf nf nf nf nf nf nf nf rv ex",
        "shop/orders                   | st nc no no no no no ok no no ok rv ex",
        "shop/nothing                  | st nc no no no no no nf no no nf rv ex",
        "bank/ledger                   | st nc no no no no no no no no ok rv ex",
    ]),
    ("waypost.v1.Discovery/Resolve", &[
        "shop/orders                   | st nc ok ok no ok ok no no no ok rv ex",
        "shop/payments                 | st nc ok ok no no ok no no no ok rv ex",
        "shop/nothing                  | st nc ok ok no no ok no no no ok rv ex",
        "bank/ledger                   | st nc no no ok no no no no no ok rv ex",
    ]),
    ("waypost.v1.Discovery/ListServices", &[
        "shop                          | st nc ok ok no pt ok no no no ok rv ex",
        "bank                          | st nc no no ok no no no no no ok rv ex",
        "nowhere                       | st nc no no no no no no no no ok rv ex",
    ]),
    ("waypost.v1.Discovery/Watch", &[
        "shop/orders                   | st nc ok ok no ok ok no no no ok rv ex",
        "shop/nothing                  | st nc ok ok no no ok no no no ok rv ex",
        "shop/orders and payments      | st nc ok ok no no ok no no no ok rv ex",
        "shop                          | st nc ok ok no pt ok no no no ok rv ex",
        "bank                          | st nc no no ok no no no no no ok rv ex",
    ]),
    ("waypost.v1.Admin/GetStatus", &[
        "-                             | st nc no no no no no no ok no ok rv ex",
    ]),
    ("waypost.v1.Admin/WhoAmI", &[
        "-                             | st nc ok ok ok ok ok ok ok ok ok rv ex",
    ]),
    ("waypost.v1.Admin/ReleaseProtection", &[
        "shop                          | st nc no no no no no ok no no ok rv ex",
        "bank                          | st nc no no no no no no no no ok rv ex",
    ]),
    ("waypost.v1.Admin/Backup", &[
        "-                             | st nc no no no no no no no em em rv ex",
    ]),
    ("grpc.health.v1.Health/Check", &[
        "-                             | st ok ok ok ok ok ok ok ok ok ok rv ex",
    ]),
    ("grpc.health.v1.Health/List", &[
        "-                             | st im im im im im im im im im im rv ex",
    ]),
    ("grpc.health.v1.Health/Watch", &[
        "-                             | st ok ok ok ok ok ok ok ok ok ok rv ex",
    ]),
    ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", &[
        "-                             | st nc ok ok ok ok ok ok ok ok ok rv ex",
    ]),
    ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &[
        "-                             | st nc ok ok ok ok ok ok ok ok ok rv ex",
    ]),
    // Methods that do not exist, which strangers can't tell from those that do.
    ("waypost.v1.Registry/Nothing", &[
        "-                             | st nc im im im im im im im im im rv ex",
    ]),
    ("nothing.Nothing/Nothing", &[
        "-                             | st nc im im im im im im im im im rv ex",
    ]),
];

/// A request to a method, with the answers to all callers.
pub(super) struct Row {
    pub(super) method: &'static str,
    pub(super) request: &'static str,
    pub(super) answers: [&'static str; CALLERS.len()],
}

/// What a caller gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) code: Code,
    /// The machine's reason of a refusal.
    pub(super) reason: Option<String>,
    /// The header `waypost-visible`.
    pub(super) visible: Option<String>,
    /// Whether the lease of the request is unknown.
    pub(super) is_unknown: bool,
}

/// Returns the rows of the table.
pub(super) fn rows() -> Vec<Row> {
    let row = |method: &'static str, text: &'static str| {
        let (request, answers) = text.split_once('|').expect("a request and answers");
        let answers: Vec<_> = answers.split_whitespace().collect();
        let answers = answers.try_into().expect("an answer to each caller");
        Row { method, request: request.trim(), answers }
    };
    TABLE
        .iter()
        .flat_map(|(method, texts)| texts.iter().map(move |text| row(method, text)))
        .collect()
}

/// Returns what an answer of the table means. `invalid` is the reason of the stranger.
pub(super) fn outcome(answer: &str, invalid: &str) -> Outcome {
    let (code, reason) = match answer {
        "ok" | "pt" | "un" => (Code::Ok, None),
        "nf" => (Code::NotFound, None),
        "iv" => (Code::InvalidArgument, None),
        "em" => (Code::FailedPrecondition, None),
        "im" => (Code::Unimplemented, None),
        "no" => (Code::PermissionDenied, Some("NOT_ALLOWED")),
        "ho" => (Code::PermissionDenied, Some("HOST_NOT_ALLOWED")),
        "nc" => (Code::Unauthenticated, Some("NO_CREDENTIALS")),
        "st" => (Code::Unauthenticated, Some(invalid)),
        "rv" => (Code::Unauthenticated, Some("REVOKED")),
        "ex" => (Code::Unauthenticated, Some("CREDENTIALS_EXPIRED")),
        other => panic!("{other} is no answer"),
    };
    Outcome {
        code,
        reason: reason.map(str::to_owned),
        visible: (answer == "pt").then(|| "part".to_owned()),
        is_unknown: answer == "un",
    }
}
