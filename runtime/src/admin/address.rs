//! The values of `--admin-addr`.

use std::net::{IpAddr, SocketAddr};

/// Reads `IP:PORT`. Brackets may stand around an address of either family: in a pod the address comes from the
/// downward API, and `[$(POD_IP)]:7480` is right whichever family the cluster has.
pub fn parse(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    if let Ok(addr) = text.parse() {
        return Ok(addr);
    }
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once("]:"));
    bracketed
        .and_then(|(ip, port)| Some(SocketAddr::new(ip.parse::<IpAddr>().ok()?, port.parse().ok()?)))
        .ok_or_else(|| {
            "is not IP:PORT, as 127.0.0.1:7480, [::1]:7480 or [192.0.2.7]:7480 (names are not looked up)"
                .to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_are_right_around_both_families() {
        for (text, expected) in [
            ("127.0.0.1:7480", "127.0.0.1:7480"),
            ("[192.0.2.7]:7480", "192.0.2.7:7480"),
            ("[fd00::7]:7480", "[fd00::7]:7480"),
            (" [::]:1 ", "[::]:1"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_examples() {
        for text in
            ["", "7480", "localhost:7480", "fd00::7:7480x", "[]:7480", "[$(POD_IP)]:7480", "[::1]7480", "::1"]
        {
            assert!(parse(text).unwrap_err().contains("IP:PORT"), "{text}");
        }
    }
}
