//! Pages of a lookup: the number of instances in one, and the token that the next one begins with.
//!
//! Pure.
//!
//! A token names the last id of the page before, so that it stays valid while instances come and
//! go. Its checksum covers the service and the id: a token of another service is refused.

use thiserror::Error;

use super::{InstanceId, ServiceKey};

/// Entries in a page of services for requests that name no size.
const SIZE_DEFAULT: u32 = 100;
/// The largest page; a larger size is taken as this one.
const SIZE_MAX: u32 = 1_000;
/// Hexadecimal digits of a token's checksum, which come first.
const CHECKSUM_LEN: usize = 16;

/// The number of services in a page, for the size in a request; 0 stands for none.
pub fn services_in_page(size: u32) -> usize {
    match size {
        0 => SIZE_DEFAULT as usize,
        size => size.min(SIZE_MAX) as usize,
    }
}

/// The page that a lookup requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The largest number of instances.
    pub size: usize,
    /// The last instance of the page before.
    pub after: Option<InstanceId>,
}

/// The text is not a token of a page of this service.
#[derive(Debug, PartialEq, Eq, Error)]
#[error(
    "is not a page token of this service: pass next_page_token unchanged, or start without one"
)]
pub struct PageTokenError;

impl Page {
    /// The page for the size and token of a request; `None`: everything in one response.
    pub fn parse(
        size: u32,
        token: &str,
        service: &ServiceKey,
        id_bytes_max: usize,
    ) -> Result<Option<Self>, PageTokenError> {
        let after = match token {
            "" if size == 0 => return Ok(None),
            "" => None,
            token => Some(read_token(token, service, id_bytes_max)?),
        };
        let size = if size == 0 { SIZE_MAX } else { size.min(SIZE_MAX) };
        Ok(Some(Self { size: size as usize, after }))
    }
}

/// The token of the page that begins after the given instance.
pub fn page_token_after(id: &InstanceId, service: &ServiceKey) -> String {
    format!("{:0CHECKSUM_LEN$x}{id}", checksum(id.as_str(), service))
}

fn read_token(
    token: &str,
    service: &ServiceKey,
    id_bytes_max: usize,
) -> Result<InstanceId, PageTokenError> {
    let (sum, id) = token.split_at_checked(CHECKSUM_LEN).ok_or(PageTokenError)?;
    let id = InstanceId::parse(id, id_bytes_max).map_err(|_| PageTokenError)?;
    // Compared as text: a number can be written in several ways.
    let expected = format!("{:0CHECKSUM_LEN$x}", checksum(id.as_str(), service));
    if sum == expected { Ok(id) } else { Err(PageTokenError) }
}

/// FNV-1a, which is the same in every process and version. It detects errors, not intent: a
/// forged token only moves the start of a page.
fn checksum(id: &str, service: &ServiceKey) -> u64 {
    let texts = [service.namespace.as_str(), service.service.as_str(), id];
    // No UTF-8 has the byte that separates them.
    let bytes = texts.iter().flat_map(|text| text.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{id, key};

    use super::*;

    #[test]
    fn a_size_above_the_largest_is_taken_as_the_largest() {
        let size = |size| Page::parse(size, "", &key("s"), 256).unwrap().map(|page| page.size);
        assert_eq!([0, 1, 999].map(size), [None, Some(1), Some(999)]);
        assert_eq!([1_000, 1_001, u32::MAX].map(size), [Some(1_000); 3]);
        assert_eq!(
            [0, 1, 1_000, 1_001, u32::MAX].map(services_in_page),
            [100, 1, 1_000, 1_000, 1_000]
        );
    }

    #[test]
    fn a_token_continues_after_its_instance() {
        let longest = "ä".repeat(128);
        for name in ["a", " ", "0", "pod/7 😀", &longest] {
            let token = page_token_after(&id(name), &key("shop/orders"));
            let page = Page::parse(0, &token, &key("shop/orders"), 256).unwrap().unwrap();
            assert_eq!(page, Page { size: 1_000, after: Some(id(name)) });
        }
    }

    #[test]
    fn tokens_stay_what_they_are_across_versions() {
        assert_eq!(page_token_after(&id("i-7"), &key("shop/orders")), "4269e706240cf5d4i-7");
    }

    #[test]
    fn other_texts_are_refused_as_tokens() {
        let service = key("shop/orders");
        let token = page_token_after(&id("i-7"), &service);
        let page = |token: &str| Page::parse(7, token, &service, 256);
        let of_others = ["shop/order", "sho/porders", "orders"].map(key);
        for other in of_others {
            assert_eq!(page(&page_token_after(&id("i-7"), &other)), Err(PageTokenError), "{other}");
        }
        let (longer, upper) = (format!("{token}7"), token.to_uppercase());
        for bad in ["0", "i-7", &token[1..], &token[..CHECKSUM_LEN], &longer, &upper, "ääääääääää"]
        {
            assert_eq!(page(bad), Err(PageTokenError), "{bad}");
        }
        let too_long = page_token_after(&id("i-7"), &service);
        assert_eq!(Page::parse(7, &too_long, &service, 2), Err(PageTokenError));
    }
}
