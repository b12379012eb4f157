//! Who becomes a member, and by what. Whoever invites has the code too: it opens nobody's account.

use serde_json::{Value, json};

use crate::limits::{Browser, PASSWORD, cookie, with_password};
use crate::{Door, Recorder};

/// An organization of one's own, and its invitation of `email`: the code that the inviter is given.
pub(crate) fn invite_from(door: &Door, key: &str, org: &str, email: &str) -> String {
    let (status, answer) =
        door.api(key, "POST", &format!("/organizations/{org}/invitations"), &json!({ "email": email, "role": "developer" }));
    assert_eq!(status, 200, "{answer}");
    answer["path"].as_str().unwrap().split_once('#').unwrap().1.to_owned()
}

fn is_empty(door: &Door, action: &str, actor: &str) -> bool {
    door.events_now(|event| event["action"] == action && event["actor"] == actor).is_empty()
}

#[test]
fn an_inviter_gets_into_nobodys_account() {
    let door = Door::open();
    let eve = door.person("eve@example.com", Some(("acme", "developer")));
    assert_eq!(door.api(&eve, "POST", "/organizations", &json!({ "name": "evil" })).0, 200);
    // The first administrator has an API key and no password, as `setup` leaves it.
    let code = invite_from(&door, &eve, "evil", "admin@example.com");
    let mut browser = Browser::at(&door.console);
    let page = browser.post("/console/invitation/open", &format!("code={code}")).text();
    assert!(page.contains("Your password") && !page.contains("Choose a password"), "{page}");
    let taken = browser.post("/console/invitation/accept", &format!("code={code}&org=evil&password={PASSWORD}"));
    assert_eq!((taken.status, cookie(&taken, "__Host-convox")), (403, None), "{}", taken.text());
    assert_eq!(browser.sign_in("admin@example.com", PASSWORD).status, 403, "there is no password still");
    assert!(is_empty(&door, "InvitationAccept", "admin@example.com"));
    // Nor by a key of somebody else, or by one that is less than a person.
    let deploy = json!({ "name": "ci", "kind": "deploy", "organization": "acme" });
    let (_, ci) = door.api(&door.key, "POST", "/keys", &deploy);
    for key in [eve.as_str(), ci["api_key"].as_str().unwrap()] {
        let (status, answer) = door.api(key, "POST", "/invitations/accept", &json!({ "code": code }));
        assert_eq!(status, 403, "{answer}");
    }

    // Whoever it is sees what they are invited to, and accepts with a key of theirs: the whole link will do.
    let link = json!({ "code": format!("https://console.example.com/console/invitation#{code}") });
    let (status, shown) = door.api(&door.key, "POST", "/invitations/open", &link);
    assert_eq!(
        (status, &shown["organization"], &shown["role"], &shown["invited_by"]),
        (200, &json!("evil"), &json!("developer"), &json!("eve@example.com"))
    );
    assert_eq!(door.api(&door.key, "POST", "/invitations/accept", &link), (200, json!({ "organization": "evil", "role": "developer" })));
    let orgs = |key: &str| door.api(key, "GET", "/me", &Value::Null).1["organizations"].clone();
    assert_eq!(orgs(&door.key).as_array().unwrap().len(), 2);
    assert_eq!(door.api(&door.key, "POST", "/invitations/accept", &link).0, 409, "once");
    assert_eq!(door.api(&door.key, "POST", "/invitations/open", &link).0, 409);
    assert_eq!(door.api(&door.key, "DELETE", "/organizations/evil/members/admin@example.com", &Value::Null).0, 200, "and leaves again");
}

#[test]
fn a_new_person_chooses_a_password_and_a_known_one_gives_theirs() {
    let door = Door::open();
    let code = invite_from(&door, &door.key, "acme", "bob@example.com");
    let mut browser = Browser::at(&door.console);
    let page = browser.post("/console/invitation/open", &format!("code={code}")).text();
    assert!(page.contains("Join acme") && page.contains("as developer") && page.contains("Choose a password"), "{page}");
    let joined = browser.post("/console/invitation/accept", &format!("code={code}&org=acme&password={PASSWORD}"));
    assert!(joined.status == 303 && cookie(&joined, "__Host-convox").is_some(), "{}", joined.text());

    // The first administrator gets a password by the link of the server's command line, and accepts with it.
    with_password(&door, "admin@example.com");
    let eve = door.person("eve@example.com", Some(("acme", "developer")));
    assert_eq!(door.api(&eve, "POST", "/organizations", &json!({ "name": "labs" })).0, 200);
    let code = invite_from(&door, &eve, "labs", "admin@example.com");
    let accept = |browser: &mut Browser, password: &str| {
        browser.post("/console/invitation/accept", &format!("code={code}&org=labs&password={password}")).status
    };
    assert_eq!(accept(&mut browser, "not-theirs-at-all"), 403);
    assert_eq!(accept(&mut browser, PASSWORD), 303);
}

#[test]
fn an_organization_cannot_stop_the_keys_of_another() {
    let rack = Recorder::start("rackPassword1");
    let theirs = Recorder::start("rackPassword2");
    let door = Door::with_rack(&rack);
    let bob = door.person("bob@example.com", Some(("acme", "operator")));
    let eve = door.person("eve@example.com", Some(("acme", "developer")));
    assert_eq!(door.api(&eve, "POST", "/organizations", &json!({ "name": "evil" })).0, 200);
    door.add_rack("evil", "trap", &theirs);
    let (status, answer) =
        door.api(&eve, "POST", "/organizations/evil/members", &json!({ "email": "bob@example.com", "role": "developer" }));
    assert!(status == 409 && answer.to_string().contains("invite them"), "{status} {answer}");

    // Even as a member, by their own doing or the server's: what another organization asks is asked there.
    door.admin(&["member", "add", "bob@example.com", "--org", "evil", "--role", "developer"]);
    door.admin(&["org", "require-factor", "evil"]);
    let asked = |rack: &str, path: &str| door.client(&bob, rack).get(path, "").unwrap().status;
    assert_eq!((asked("acme/main", "/apps"), asked("main", "/apps")), (200, 200));
    assert_eq!((asked("evil/trap", "/apps"), asked("trap", "/apps"), asked("no/such", "/apps")), (403, 403, 403));
    assert!(theirs.hits().is_empty(), "nothing reached it");
    // Nor are its Racks shown, or what is in it.
    let racks = door.client(&bob, "acme/main").get("/racks", "").unwrap().json();
    assert_eq!((racks.as_array().unwrap().len(), &racks[0]["name"]), (1, &json!("main")));
    assert_eq!(asked("acme/main", "/racks/evil/trap"), 403);
    assert_eq!(asked("acme/main", "/racks/acme/main"), 200);
    assert_eq!(asked("acme/main", "/racks/trap/host"), 404);
    let api = |method: &str, path: &str, body: &Value| door.api(&bob, method, path, body).0;
    assert_eq!(api("GET", "/organizations/acme/members", &Value::Null), 200);
    assert_eq!(api("GET", "/organizations/evil/members", &Value::Null), 403);
    let own = door.api(&bob, "GET", "/racks", &Value::Null).1;
    assert_eq!((own.as_array().unwrap().len(), &own[0]["name"]), (1, &json!("main")));
    // A key that needs no factor is no way around.
    for wanted in [json!({ "name": "ci", "kind": "deploy" }), json!({ "name": "ci", "organization": "evil" })] {
        assert_eq!(api("POST", "/keys", &wanted), 403, "{wanted}");
    }
    // What its own organization asks counts.
    door.admin(&["org", "require-factor", "acme"]);
    assert_eq!((asked("acme/main", "/apps"), asked("acme/main", "/racks")), (403, 403));
    door.admin(&["org", "require-factor", "acme", "--off"]);
    assert_eq!(asked("acme/main", "/apps"), 200);
}

#[test]
fn an_organization_sees_nothing_of_a_members_keys_for_others() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let bob = door.person("bob@example.com", Some(("acme", "operator")));
    for name in ["labs", "other"] {
        door.admin(&["org", "create", name]);
        door.admin(&["member", "add", "bob@example.com", "--org", name, "--role", "developer"]);
    }
    let eve = door.person("eve@example.com", Some(("labs", "administrator")));
    let wanted = json!({ "name": "acmes", "organization": "acme", "racks": ["main"], "apps": ["shop"], "networks": ["10.1.0.0/16"] });
    assert_eq!(door.api(&bob, "POST", "/keys", &wanted).0, 200);
    let (status, seen) = door.api(&eve, "GET", "/organizations/labs/members/bob@example.com/keys", &Value::Null);
    assert_eq!((status, seen.as_array().unwrap().len(), &seen[0]["name"]), (200, 1, &json!("test")));
    let (_, seen) = door.api(&door.key, "GET", "/organizations/acme/members/bob@example.com/keys", &Value::Null);
    let named = seen.as_array().unwrap().iter().find(|key| key["name"] == "acmes").unwrap();
    assert_eq!((&named["racks"], &named["apps"]), (&json!(["acme/main"]), &json!(["shop"])));
}
