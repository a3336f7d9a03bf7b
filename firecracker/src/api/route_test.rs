use super::*;

fn request(method: Method, path: &str, body: &str) -> Request {
    Request { method, path: path.to_owned(), body: body.as_bytes().to_vec(), keeps_alive: true }
}

fn refused(method: Method, path: &str, body: &str) -> String {
    route(&request(method, path, body)).unwrap_err().message().to_owned()
}

#[test]
fn a_path_that_is_not_there_is_told_with_its_method() {
    assert_eq!(refused(Method::Get, "/vms", ""), "Invalid request method and/or path: GET vms.");
    assert_eq!(refused(Method::Put, "/version", "{}"), "Invalid request method and/or path: PUT version.");
    assert_eq!(refused(Method::Patch, "/boot-source", "{}"), "Invalid request method and/or path: PATCH boot-source.");
    let post = Method::Other("POST".to_owned());
    assert_eq!(refused(post, "/actions", "{}"), "Invalid request method and/or path: POST actions.");
    assert_eq!(refused(Method::Put, "/snapshot/drop", "{}"), "Invalid request method and/or path: PUT /snapshot/drop.");
}

#[test]
fn a_body_is_where_the_method_has_one() {
    assert_eq!(refused(Method::Get, "/version", "{}"), "GET request cannot have a body.");
    assert_eq!(refused(Method::Put, "/actions", ""), "Empty PUT request.");
    assert_eq!(refused(Method::Patch, "/vm", ""), "Empty PATCH request.");
    assert_eq!(refused(Method::Patch, "/machine-config", "{}"), "Empty PATCH request.");
}

#[test]
fn a_body_that_is_not_what_it_should_be_is_told_by_its_member() {
    let told = refused(Method::Put, "/boot-source", r#"{"kernel_image_path": "a", "kernel": 1}"#);
    assert!(told.starts_with("An error occurred when deserializing the json body of a request: "), "{told}");
    assert!(told.contains("unknown field `kernel`") && told.ends_with("."), "{told}");
    assert!(refused(Method::Put, "/actions", r#"{"action_type": "Stop"}"#).contains("InstanceStart"));
    assert!(refused(Method::Put, "/machine-config", r#"{"vcpu_count": 256, "mem_size_mib": 1}"#).contains("256"));
    assert!(refused(Method::Put, "/logger", r#"{"level": "loud"}"#).contains("allowed are Off, Error"));
}

#[test]
fn a_name_is_the_same_in_path_and_body() {
    let drive = r#"{"drive_id": "a", "is_root_device": false, "path_on_host": "x"}"#;
    assert!(matches!(route(&request(Method::Put, "/drives/a", drive)), Ok((Call::PutDrive(_), false))));
    assert_eq!(refused(Method::Put, "/drives/b", drive), "The id from the path does not match the id from the body!");
    assert_eq!(refused(Method::Put, "/drives", drive), "The ID cannot be empty.");
    let told = "API Resource IDs can only contain alphanumeric characters and underscores.";
    assert_eq!(refused(Method::Put, "/drives/a-b", drive), told);
    let nic = r#"{"iface_id": "a"}"#;
    let told = "The id from the path [b] does not match the id from the body [a]!";
    assert_eq!(refused(Method::Patch, "/network-interfaces/b", nic), told);
}

#[test]
fn what_is_deprecated_is_marked() {
    let is_deprecated = |method, path: &str, body: &str| route(&request(method, path, body)).unwrap().1;
    assert!(is_deprecated(Method::Put, "/vsock", r#"{"vsock_id": "v", "guest_cid": 3, "uds_path": "x"}"#));
    assert!(is_deprecated(Method::Put, "/mmds/config", r#"{"network_interfaces": ["a"]}"#));
    assert!(!is_deprecated(Method::Put, "/mmds/config", r#"{"version": "V2", "network_interfaces": ["a"]}"#));
    assert!(is_deprecated(Method::Put, "/snapshot/load", r#"{"snapshot_path": "a", "mem_file_path": "b"}"#));
    let both =
        r#"{"snapshot_path": "a", "mem_file_path": "b", "mem_backend": {"backend_type": "File", "backend_path": "b"}}"#;
    assert!(refused(Method::Put, "/snapshot/load", both).contains("exclusively"));
    assert!(refused(Method::Put, "/snapshot/load", r#"{"snapshot_path": "a"}"#).contains("missing field"));
}
