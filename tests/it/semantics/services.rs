//! The list of services, in pages.

use waypost_client::proto::{Instance, ListServicesRequest, Status};
use waypost_testing::registry::{instance, register, revision};

use super::by_name;
use crate::support::TestServer;

#[tokio::test]
async fn services_are_listed_in_pages_with_counts() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let mut expected = Vec::new();
    for number in 0..23 {
        let name = format!("service-{number:02}");
        let (mut instances, mut up) = (0, 0);
        for id in 0..=(number % 3) {
            let status = if id == 1 { Status::Down } else { Status::Up };
            let id = id.to_string();
            register(&mut registry, Instance { status: status.into(), ..instance(&name, &id) })
                .await;
            instances += 1;
            up += u32::from(status == Status::Up);
        }
        expected.push((name, instances, up));
    }
    let elsewhere = Instance { namespace: "other".into(), ..instance("elsewhere", "a") };
    register(&mut registry, elsewhere).await;
    let mut discovery = server.discovery();
    for page_size in [0, 1, 5, 22, 23, 24, 1000] {
        let mut listed = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListServicesRequest { page_size, page_token, ..Default::default() };
            let page = discovery.list_services(request).await.expect("a page").into_inner();
            assert_eq!(revision(page.cursor.as_ref()), server.status().await.revision);
            let most = if page_size == 0 { 100 } else { page_size };
            assert!(page.services.len() <= most as usize);
            for service in page.services {
                assert_eq!(service.namespace, "default");
                listed.push((service.name, service.instances, service.up));
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
            assert!(listed.len() <= expected.len(), "the pages have no end");
        }
        assert_eq!(listed, expected, "in pages of {page_size}");
    }
}

#[tokio::test]
async fn page_of_services_stays_valid_while_services_change() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    for name in ["a", "c", "e"] {
        register(&mut registry, instance(name, "1")).await;
    }
    let request = ListServicesRequest { page_size: 2, ..Default::default() };
    let page = server.discovery().list_services(request).await.expect("a page").into_inner();
    registry.deregister(by_name("c", "1")).await.expect("gone");
    register(&mut registry, instance("d", "1")).await;
    register(&mut registry, instance("b", "1")).await;
    let request = ListServicesRequest {
        page_size: 2,
        page_token: page.next_page_token,
        ..Default::default()
    };
    let page = server.discovery().list_services(request).await.expect("a page").into_inner();
    let names: Vec<_> = page.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["d", "e"]);
}
