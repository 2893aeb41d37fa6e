//! The policy that `waypost ca init` writes, for the names of its certificates. Pure.

use super::holder::TrustDomain;

/// Returns the text of the policy of a trust domain: a workload registers its own service and sees
/// its namespace, operators may do everything, and nobody else anything.
#[must_use]
pub fn policy(domain: &TrustDomain) -> String {
    format!(
        r#"# Who may do what in the registry. What no rule allows is denied.
#   waypost policy check policy.toml      lists all errors
#   waypost policy explain policy.toml spiffe://{domain}/ns/default/sa/orders
#                                         shows what this caller may do, and by which rule

# A workload registers the service that its certificate names.
[[allow]]
who = "spiffe://{domain}/ns/{{namespace}}/sa/{{service}}"
may = ["register"]
on = "{{namespace}}/{{service}}"
# hosts = ["peer"]  # At the address that it calls from only. Not where addresses are translated
#                   # between workloads and the registry (NAT, published ports, proxies).

# A workload sees its own namespace.
[[allow]]
who = "spiffe://{domain}/ns/{{namespace}}/sa/*"
may = ["discover"]
on = "{{namespace}}/*"

# Operators may do everything.
[[allow]]
who = "spiffe://{domain}/operators/*"
may = ["discover", "register", "operate", "status", "backup"]
on = "*/*"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_has_the_domain_and_the_placeholders() {
        let text = policy(&"prod.example".parse().unwrap());
        assert!(text.contains("who = \"spiffe://prod.example/ns/{namespace}/sa/{service}\"\n"));
        assert!(text.contains("on = \"{namespace}/{service}\"\n"));
        // Breaks registration behind address translation: a comment only.
        let hosts = text.lines().filter(|line| line.contains("hosts"));
        assert!(hosts.clone().count() > 0 && hosts.clone().all(|line| line.starts_with('#')));
    }
}
