PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE admin_links (
    -- An address that makes one visitor a moderator.
    token_hash blob primary key,
    made_at integer not null
) without rowid;
INSERT INTO "admin_links" VALUES(X'0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A',1795908891751);
CREATE TABLE clients (
    -- This user is (or was, less than a day ago) here, on that node. Found again by its token.
    id integer primary key autoincrement,    -- never given again
    user_id integer not null references users (id) on delete cascade,
    guest integer not null default 1 check (guest in (0, 1)),
    node_id integer not null,
    visit integer not null default 0,        -- grows each time somebody comes back to it
    token_hash blob not null unique,
    arrived_at integer not null,
    left_at integer                          -- null: here now
, session_id integer references sessions (id) on delete cascade);
INSERT INTO "clients" VALUES(1,1,1,1,0,X'0101010101010101010101010101010101010101010101010101010101010101',1795908891611,NULL,NULL);
INSERT INTO "clients" VALUES(2,2,1,1,0,X'0202020202020202020202020202020202020202020202020202020202020202',1795908891618,1795908891752,NULL);
INSERT INTO "clients" VALUES(3,3,1,1,0,X'0303030303030303030303030303030303030303030303030303030303030303',1795908891619,NULL,NULL);
INSERT INTO "clients" VALUES(4,4,0,1,0,X'A8CF035FEC8391A2246EA969FBE1223224050BD73B4C6288D6BBF8E0F2AA0A61',1795908891620,NULL,1);
INSERT INTO "clients" VALUES(5,5,1,1,0,X'0505050505050505050505050505050505050505050505050505050505050505',1795908891624,NULL,NULL);
INSERT INTO "clients" VALUES(6,6,1,1,0,X'0606060606060606060606060606060606060606060606060606060606060606',1795908891626,1795908891750,NULL);
CREATE TABLE clients_active (
    -- The client is looking at the room right now and gets its pushes.
    client_id integer primary key references clients (id) on delete cascade,
    room_id integer not null references rooms (id) on delete cascade
, entered_at integer not null default 0, user_id integer not null default 0);
INSERT INTO "clients_active" VALUES(1,6681601046992595814,1795908891737,1);
INSERT INTO "clients_active" VALUES(4,1597358450674068033,1795908891741,4);
INSERT INTO "clients_active" VALUES(5,7987559612500591419,1795908891649,5);
CREATE TABLE deeds (
    -- What a moderator did, in words that say what was meant then.
    id integer primary key autoincrement,
    at integer not null,
    moderator_id integer,                    -- null: on the server's command line
    moderator text not null,                 -- how the moderator was called
    deed text not null
);
INSERT INTO "deeds" VALUES(1,1795908891632,3,'carla','became a moderator');
INSERT INTO "deeds" VALUES(2,1795908891668,3,'carla','deleted message 5 of mal in #hi');
INSERT INTO "deeds" VALUES(3,1795908891734,3,'carla','restricted #secret to moderators');
INSERT INTO "deeds" VALUES(4,1795908891735,3,'carla','removed #gone');
INSERT INTO "deeds" VALUES(5,1795908891736,3,'carla','renamed #wrong to #right');
INSERT INTO "deeds" VALUES(6,1795908891749,3,'carla','muted eve');
INSERT INTO "deeds" VALUES(7,1795908891750,3,'carla','banned mal');
CREATE TABLE messages (
    -- One message. Within a room, order by id is order by made.
    id integer primary key,
    room_id integer not null references rooms (id) on delete cascade,
    user_id integer not null references users (id) on delete cascade,
    author_name text not null,               -- the name it was written under
    text text not null,
    key text,                                -- the browser's, unique per author
    made integer not null,                   -- the room's version that made it
    changed integer not null,                -- the room's version of its last change
    created_at integer not null
, edited_at integer, deleted_at integer, reactions text, worded integer not null default 0, deleted_by integer);
INSERT INTO "messages" VALUES(1,7987559612500591419,1,'Аня ☃','first
line, “two” 	\N\ % ''q'' 𝄞',NULL,1,16,1795908891649,NULL,NULL,'[["👍",2,["bob","carla"]],["🎉",1,["bob"]],["❤️",1,["bob"]],["😂",1,["bob"]],["🏳️‍🌈",1,["bob"]]]',1,NULL);
INSERT INTO "messages" VALUES(2,7987559612500591419,2,'bob','by key','00000000-0000-0000-6f76-657277697265',2,2,1795908891651,NULL,NULL,NULL,2,NULL);
INSERT INTO "messages" VALUES(3,7987559612500591419,1,'Аня ☃','edited',NULL,3,4,1795908891658,1795908891660,NULL,NULL,4,NULL);
INSERT INTO "messages" VALUES(4,7987559612500591419,2,'bob','regretted',NULL,5,6,1795908891664,NULL,1795908891665,NULL,6,NULL);
INSERT INTO "messages" VALUES(5,7987559612500591419,6,'mal','bad',NULL,7,8,1795908891666,NULL,1795908891668,NULL,8,3);
INSERT INTO "messages" VALUES(6,8777796732977986207,1,'Аня ☃','日本語',NULL,1,1,1795908891713,NULL,NULL,NULL,1,NULL);
INSERT INTO "messages" VALUES(7,8388838156749982761,1,'Аня ☃','Ελλάδα',NULL,1,1,1795908891725,NULL,NULL,NULL,1,NULL);
INSERT INTO "messages" VALUES(8,2527144842004458679,1,'Аня ☃','secret',NULL,1,1,1795908891727,NULL,NULL,NULL,1,NULL);
INSERT INTO "messages" VALUES(9,8827400628064994608,1,'Аня ☃','gone',NULL,1,1,1795908891730,NULL,NULL,NULL,1,NULL);
INSERT INTO "messages" VALUES(10,6240386023114078255,1,'Аня ☃','wrong',NULL,1,1,1795908891732,NULL,NULL,NULL,1,NULL);
INSERT INTO "messages" VALUES(11,6681601046992595814,1,'Аня ☃','read',NULL,1,1,1795908891738,NULL,NULL,NULL,1,NULL);
INSERT INTO "messages" VALUES(12,6681601046992595814,1,'Аня ☃','unread',NULL,2,2,1795908891739,NULL,NULL,NULL,2,NULL);
INSERT INTO "messages" VALUES(13,7987559612500591419,3,'carla','last',NULL,17,17,1795908891753,NULL,NULL,NULL,17,NULL);
CREATE TABLE nodes (
    -- One row per running server process. Its clients stand while its lease does.
    id integer primary key,
    lease_until integer not null
);
INSERT INTO "nodes" VALUES(1,1795908906626);
CREATE TABLE reactions (
    -- This user reacted to the message with this emoji.
    id integer primary key,                  -- grows: the first come first
    message_id integer not null references messages (id) on delete cascade,
    room_id integer not null,                -- the message's
    user_id integer not null references users (id) on delete cascade,
    emoji text not null,
    name text not null,                      -- the name the user had then
    created_at integer not null,
    unique (message_id, emoji, user_id)
);
INSERT INTO "reactions" VALUES(1,1,7987559612500591419,2,'👍','bob',1795908891672);
INSERT INTO "reactions" VALUES(2,1,7987559612500591419,2,'🎉','bob',1795908891674);
INSERT INTO "reactions" VALUES(3,1,7987559612500591419,2,'❤️','bob',1795908891675);
INSERT INTO "reactions" VALUES(4,1,7987559612500591419,2,'😂','bob',1795908891688);
INSERT INTO "reactions" VALUES(5,1,7987559612500591419,2,'🏳️‍🌈','bob',1795908891692);
INSERT INTO "reactions" VALUES(6,1,7987559612500591419,3,'👍','carla',1795908891693);
CREATE TABLE room_histories (
    -- From which version on a room's changes belong to a history. A version of a history is
    -- known here only up to where the next one begins, which tells a restored store's from others.
    room_id integer not null references rooms (id) on delete cascade,
    first_version integer not null,
    history integer not null,
    primary key (room_id, first_version)
) without rowid;
INSERT INTO "room_histories" VALUES(2527144842004458679,1,1041399749);
INSERT INTO "room_histories" VALUES(6240386023114078255,1,1041399749);
INSERT INTO "room_histories" VALUES(6681601046992595814,1,1041399749);
INSERT INTO "room_histories" VALUES(7987559612500591419,1,1041399749);
INSERT INTO "room_histories" VALUES(8388838156749982761,1,1041399749);
INSERT INTO "room_histories" VALUES(8777796732977986207,1,1041399749);
INSERT INTO "room_histories" VALUES(8827400628064994608,1,1041399749);
CREATE TABLE rooms (
    -- A group, or the private room of a pair. version counts its stored changes.
    id integer primary key,                  -- random
    kind text not null check (kind in ('group', 'private')),
    name text,                               -- of a group, as written
    name_key text unique,                    -- of a group, without regard to case
    position integer,                        -- the order of the default groups; null for others
    user_low integer references users (id) on delete cascade,
    user_high integer references users (id) on delete cascade,
    version integer not null default 0,
    history integer not null default 0,      -- the history of the last change
    created_at integer not null, people integer not null default 0, restricted_at integer, removed_at integer,
    unique (user_low, user_high),
    check (case kind
        when 'group' then name is not null and name_key is not null and user_low is null and user_high is null
        else name is null and name_key is null and user_low < user_high
    end)
);
INSERT INTO "rooms" VALUES(1597358450674068033,'private',NULL,NULL,NULL,4,5,0,0,1795908891741,1,NULL,NULL);
INSERT INTO "rooms" VALUES(2527144842004458679,'group','secret','!secret',NULL,NULL,NULL,1,1041399749,1795908891726,0,1795908891734,NULL);
INSERT INTO "rooms" VALUES(3569203306771612660,'group','events','events',3,NULL,NULL,0,0,1795908891000,0,NULL,NULL);
INSERT INTO "rooms" VALUES(6240386023114078255,'group','right','right',NULL,NULL,NULL,1,1041399749,1795908891731,0,NULL,NULL);
INSERT INTO "rooms" VALUES(6681601046992595814,'private',NULL,NULL,NULL,1,2,2,1041399749,1795908891737,1,NULL,NULL);
INSERT INTO "rooms" VALUES(7987559612500591419,'group','hi','hi',1,NULL,NULL,17,1041399749,1795908891000,1,NULL,NULL);
INSERT INTO "rooms" VALUES(8388838156749982761,'group','Ελλάδα','ελλάδα',NULL,NULL,NULL,1,1041399749,1795908891724,0,NULL,NULL);
INSERT INTO "rooms" VALUES(8767339758325528961,'group','python','python',2,NULL,NULL,0,0,1795908891000,0,NULL,NULL);
INSERT INTO "rooms" VALUES(8777796732977986207,'group','日本語','日本語',NULL,NULL,NULL,1,1041399749,1795908891712,0,NULL,NULL);
INSERT INTO "rooms" VALUES(8827400628064994608,'group','gone','~8827400628064994608',NULL,NULL,NULL,1,1041399749,1795908891729,0,NULL,1795908891735);
INSERT INTO "rooms" VALUES(9201036144054157152,'group','off-topic','off-topic',4,NULL,NULL,0,0,1795908891000,0,NULL,NULL);
CREATE TABLE sessions (
    -- Somebody who keeps their name has signed in, known by the token in their cookie. It is good
    -- until it was not seen for a while: a client came or went by it. Its clients end with it.
    id integer primary key autoincrement,    -- never given again
    user_id integer not null references users (id) on delete cascade,
    token_hash blob not null unique,
    made_at integer not null,
    seen_at integer not null
);
INSERT INTO "sessions" VALUES(1,4,X'0808080808080808080808080808080808080808080808080808080808080808',1795908891742,1795908891742);
CREATE TABLE users (
    -- One row per fake person, seeded or made when nobody was free.
    id integer primary key,
    name text not null unique check (name = lower(name)), -- never changes
    email text not null unique,
    display_name text,                       -- what they choose to be called, if anything
    arrived_at integer,                      -- when somebody was this user first; null: not a person yet
    traced_at integer,                       -- when the first stored row named them; never handed out after
    free integer not null default 1 check (free in (0, 1)), -- may be handed to a newcomer
    gone_at integer,                         -- untouched, not free, nobody there since
    shuffle integer not null                 -- random, so that a random free user is found by index
, display_key text, display_look text, display_look_capitals text, password_hash text, kept_at integer, moderator_at integer, muted_at integer, banned_at integer);
INSERT INTO "users" VALUES(1,'anna','anna@example.com','Аня ☃',1795908891611,1795908891634,0,NULL,1200563510346453811,'аня ☃','aʜᴙ☃','ahᴙ☃',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "users" VALUES(2,'bob','bob@example.com',NULL,1795908891618,1795908891651,0,NULL,8896699265407741848,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "users" VALUES(3,'carla','carla@example.com',NULL,1795908891619,1795908891632,0,NULL,40068564244323011,NULL,NULL,NULL,NULL,NULL,1795908891632,NULL,NULL);
INSERT INTO "users" VALUES(4,'dora','dora@example.com',NULL,1795908891620,1795908891703,0,NULL,-2696715178516031606,NULL,NULL,NULL,'hers',1795908891742,NULL,NULL,NULL);
INSERT INTO "users" VALUES(5,'eve','eve@example.com',NULL,1795908891624,1795908891749,0,NULL,-1064065103500383532,NULL,NULL,NULL,NULL,NULL,NULL,1795908891749,NULL);
INSERT INTO "users" VALUES(6,'mal','mal@example.com',NULL,1795908891626,1795908891666,0,NULL,128250616335917936,NULL,NULL,NULL,NULL,NULL,NULL,NULL,1795908891750);
INSERT INTO "users" VALUES(7,'seed0','seed0@example.com',NULL,NULL,NULL,1,NULL,-4289419090453278917,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "users" VALUES(8,'seed1','seed1@example.com',NULL,NULL,NULL,1,NULL,9126293294767982820,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "users" VALUES(9,'seed2','seed2@example.com',NULL,NULL,NULL,1,NULL,-1952190889805864978,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "users" VALUES(10,'seed3','seed3@example.com',NULL,NULL,NULL,1,NULL,551476751042612954,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "users" VALUES(11,'seed4','seed4@example.com',NULL,NULL,NULL,1,NULL,-1793894767193229040,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE users_subscribed (
    -- The user belongs to the room, for good: they wrote there, or it is a private room with
    -- messages. The columns from with_id on serve the unread marks of private rooms.
    user_id integer not null references users (id) on delete cascade,
    room_id integer not null references rooms (id) on delete cascade,
    since integer not null,
    with_id integer references users (id) on delete cascade, -- the other person of a private room
    last_message_id integer not null default 0,
    read_message_id integer not null default 0,
    unread integer not null default 0,       -- messages of the other after read_message_id, up to 100
    primary key (user_id, room_id)
) without rowid;
INSERT INTO "users_subscribed" VALUES(1,2527144842004458679,1795908891726,NULL,0,0,0);
INSERT INTO "users_subscribed" VALUES(1,6240386023114078255,1795908891731,NULL,0,0,0);
INSERT INTO "users_subscribed" VALUES(1,6681601046992595814,1795908891738,2,12,0,0);
INSERT INTO "users_subscribed" VALUES(1,7987559612500591419,1795908891649,NULL,0,0,0);
INSERT INTO "users_subscribed" VALUES(1,8388838156749982761,1795908891724,NULL,0,0,0);
INSERT INTO "users_subscribed" VALUES(1,8777796732977986207,1795908891712,NULL,0,0,0);
INSERT INTO "users_subscribed" VALUES(2,6681601046992595814,1795908891738,1,12,11,1);
INSERT INTO "users_subscribed" VALUES(2,7987559612500591419,1795908891651,NULL,0,0,0);
INSERT INTO "users_subscribed" VALUES(3,7987559612500591419,1795908891753,NULL,0,0,0);
INSERT INTO "users_subscribed" VALUES(6,7987559612500591419,1795908891666,NULL,0,0,0);
CREATE INDEX users_free on users (shuffle) where free = 1;
CREATE INDEX users_gone on users (gone_at) where gone_at is not null;
CREATE INDEX users_people on users (name) where arrived_at is not null;
CREATE UNIQUE INDEX clients_guest on clients (user_id) where guest = 1;
CREATE INDEX clients_user on clients (user_id);
CREATE INDEX clients_here on clients (arrived_at) where left_at is null;
CREATE INDEX clients_node on clients (node_id) where left_at is null;
CREATE INDEX clients_left on clients (left_at) where left_at is not null;
CREATE INDEX rooms_high on rooms (user_high) where user_high is not null;
CREATE INDEX rooms_default on rooms (position) where position is not null;
CREATE UNIQUE INDEX room_histories_history on room_histories (room_id, history);
CREATE INDEX messages_room on messages (room_id, id);
CREATE UNIQUE INDEX messages_made on messages (room_id, made);
CREATE INDEX messages_changed on messages (room_id, changed);
CREATE UNIQUE INDEX messages_key on messages (user_id, key) where key is not null;
CREATE INDEX users_subscribed_mine on users_subscribed (user_id, (unread > 0), last_message_id)
    where with_id is not null;
CREATE INDEX users_subscribed_groups on users_subscribed (user_id, since) where with_id is null;
CREATE INDEX users_subscribed_room on users_subscribed (room_id);
CREATE INDEX clients_active_room on clients_active (room_id, entered_at, client_id);
CREATE INDEX rooms_busiest on rooms (people desc, name_key) where kind = 'group';
CREATE UNIQUE INDEX users_display_look on users (display_look) where display_look is not null;
CREATE UNIQUE INDEX users_display_look_capitals on users (display_look_capitals)
    where display_look_capitals is not null;
CREATE INDEX users_display_key on users (display_key) where display_key is not null;
CREATE INDEX users_look on users (
    replace(replace(replace(replace(name, 'm', 'rn'), '0', 'o'), '1', 'l'), 'i', 'l'));
CREATE INDEX reactions_first on reactions (message_id, emoji, id);
CREATE INDEX reactions_of_message on reactions (message_id, id);
CREATE INDEX reactions_mine on reactions (user_id, room_id, message_id);
CREATE INDEX messages_worded on messages (room_id, worded);
CREATE INDEX sessions_user on sessions (user_id);
CREATE INDEX sessions_seen on sessions (seen_at);
CREATE INDEX clients_session on clients (session_id) where session_id is not null;
CREATE INDEX clients_person on clients (user_id, arrived_at) where left_at is null;
CREATE INDEX clients_active_person on clients_active (room_id, user_id, entered_at, client_id);
CREATE TRIGGER clients_active_enter after insert on clients_active
when not exists (select 1 from clients_active a
    where a.room_id = new.room_id and a.user_id = new.user_id and a.client_id <> new.client_id) begin
    update rooms set people = people + 1 where id = new.room_id;
end;
CREATE TRIGGER clients_active_leave after delete on clients_active
when not exists (select 1 from clients_active a
    where a.room_id = old.room_id and a.user_id = old.user_id) begin
    update rooms set people = people - 1 where id = old.room_id;
end;
CREATE TRIGGER clients_active_change after update of room_id on clients_active when old.room_id <> new.room_id begin
    update rooms set people = people - 1 where id = old.room_id
    and not exists (select 1 from clients_active a
        where a.room_id = old.room_id and a.user_id = old.user_id);
    update rooms set people = people + 1 where id = new.room_id
    and not exists (select 1 from clients_active a
        where a.room_id = new.room_id and a.user_id = new.user_id and a.client_id <> new.client_id);
end;
CREATE INDEX rooms_restricted on rooms (name_key) where restricted_at is not null;
CREATE INDEX rooms_closed on rooms (id) where restricted_at is not null or removed_at is not null;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('clients',6);
INSERT INTO "sqlite_sequence" VALUES('deeds',7);
INSERT INTO "sqlite_sequence" VALUES('sessions',2);
COMMIT;
pragma user_version = 8;
