-- Times are milliseconds since 1970-01-01 UTC, by this database's clock. Names are compared by their
-- code points, whatever the database's locale.

create function millis() returns bigint language sql volatile as
    $$ select floor(extract(epoch from clock_timestamp()) * 1000)::bigint $$;

-- The one row holds the current history, the mark of the database on which it was begun, and an
-- identity. Together with the number of the database, the identity distinguishes this store from all
-- others.
create table life (
    is_one boolean primary key default true check (is_one),
    history bigint not null,
    mark text not null,
    identity uuid not null
);
insert into life (history, mark, identity) values (0, '', gen_random_uuid());

-- One row per process that writes, with the number of its last transaction. If the answer to a commit
-- was lost, this number tells whether the transaction was committed.
create table writers (
    id bigint primary key,
    batch bigint not null,
    seen_at bigint not null
);

-- One row per running server process. Its clients are connected until its lease expires.
create table nodes (
    id bigint primary key,
    lease_until bigint not null
);

-- One row per fake person, added in advance or created when nobody was free.
create table users (
    id bigint generated always as identity primary key,
    name text collate "C" not null unique check (name = lower(name)), -- never changes
    email text collate "C" not null unique,
    display_name text,                       -- the name they have chosen, if any
    display_key text collate "C",            -- display_name, ignoring case
    -- The same for all names that look alike: in small letters, and in capitals.
    display_look text collate "C",
    display_look_capitals text collate "C",
    arrived_at bigint,                       -- when somebody first was this user; null: nobody yet
    traced_at bigint,                        -- when a stored row first referred to them; not given away after that
    free boolean not null default true,      -- may be given to a newcomer
    gone_at bigint,                          -- unused and not free: since when nobody is connected
    shuffle bigint not null,                 -- random, so that a random free user is found by index
    password_hash text,                      -- a PHC string, if they have an account
    kept_at bigint,                          -- when they registered; the user and the display name stay theirs
    moderator_at bigint,                     -- since when they are a moderator
    muted_at bigint,                         -- since when everything they write is refused
    banned_at bigint                         -- since when nobody can connect as this user
);
create index users_free on users (shuffle) where free;
create index users_gone on users (gone_at) where gone_at is not null;
create index users_people on users (name) where arrived_at is not null;
create unique index users_display_look on users (display_look) where display_look is not null;
create unique index users_display_look_capitals on users (display_look_capitals)
    where display_look_capitals is not null;
create index users_display_key on users (display_key) where display_key is not null;
-- Both looks of a user name, which consists of small letters and digits.
create index users_look on users (
    (replace(replace(replace(replace(name, 'm', 'rn'), '0', 'o'), '1', 'l'), 'i', 'l')));

-- A registered person has signed in and has a token in their cookie. The session expires when it has
-- not been used for a while, that is, when no client connected or left with it. Its clients end with it.
create table sessions (
    id bigint generated always as identity primary key, -- never given again
    user_id bigint not null references users (id) on delete cascade,
    token_hash bytea not null unique,
    made_at bigint not null,
    seen_at bigint not null
);
create index sessions_user on sessions (user_id);
create index sessions_seen on sessions (seen_at);

-- This user is connected to that node, or was less than a day ago. A client is found by its token.
create table clients (
    id bigint generated always as identity primary key, -- never given again
    user_id bigint not null references users (id) on delete cascade,
    guest boolean not null default true,
    session_id bigint references sessions (id) on delete cascade, -- null: a guest
    node_id bigint not null,
    visit bigint not null default 0,         -- grows each time the client is taken over
    token_hash bytea not null unique,
    arrived_at bigint not null,
    left_at bigint,                          -- null: connected
    cut_off boolean not null default false   -- left because its node has ended
);
-- A guest is one client; a registered person may have several.
create unique index clients_guest on clients (user_id) where guest;
create index clients_here on clients (arrived_at, id) where left_at is null;
create index clients_node on clients (node_id) where left_at is null;
create index clients_left on clients (left_at) where left_at is not null;
create index clients_session on clients (session_id) where session_id is not null;
create index clients_user on clients (user_id);
-- Of several clients of one person, the one connected longest counts.
create index clients_person on clients (user_id, arrived_at, id) where left_at is null;

-- A group, or the private room of a pair. `version` counts its stored changes.
create table rooms (
    id bigint primary key,                   -- random
    kind text not null check (kind in ('group', 'private')),
    name text,                               -- of a group, as it is shown
    -- The name of a group, ignoring case. For a restricted group it begins with "!", which no name
    -- contains, so that other people can create a group of that name and learn nothing. For a removed
    -- group it is "~" and the id.
    name_key text collate "C" unique,
    position bigint,                         -- the order of the default groups; null for others
    user_low bigint references users (id) on delete cascade,
    user_high bigint references users (id) on delete cascade,
    version bigint not null default 0,
    history bigint not null default 0,       -- the history of the last change
    people bigint not null default 0,        -- how many people are in it, each counted once; updated by triggers
    created_at bigint not null,
    restricted_at bigint,                    -- of a group: since when it is restricted to moderators
    removed_at bigint,                       -- of a group: when it was removed
    unique (user_low, user_high),
    check (case kind
        when 'group' then name is not null and name_key is not null and user_low is null and user_high is null
        else name is null and name_key is null and user_low is not null and user_high is not null
            and user_low < user_high
    end)
);
create index rooms_high on rooms (user_high) where user_high is not null;
create index rooms_default on rooms (position) where position is not null;
-- Lists the groups with the most people without reading all groups.
create index rooms_busiest on rooms (people desc, name_key) where kind = 'group';
create index rooms_restricted on rooms (name_key) where restricted_at is not null;
create index rooms_closed on rooms (id) where restricted_at is not null or removed_at is not null;

-- The version from which a room's changes belong to a history. A history's versions end where the next
-- history begins. A version beyond that comes from another database, for example one that was restored.
create table room_histories (
    room_id bigint not null references rooms (id) on delete cascade,
    first_version bigint not null,
    history bigint not null,
    primary key (room_id, first_version)
);
create unique index room_histories_history on room_histories (room_id, history);

-- One message. Within a room, ids and versions have the same order: both are taken while the room is
-- locked.
create table messages (
    id bigint generated always as identity primary key,
    room_id bigint not null references rooms (id) on delete cascade,
    user_id bigint not null references users (id) on delete cascade,
    author_name text not null,               -- the author's name when it was written
    text text not null,
    key uuid,                                -- created by the browser, unique per author
    made bigint not null,                    -- the room's version that created it
    changed bigint not null,                 -- the room's version of its last change
    worded bigint not null,                  -- the room's version of the last change of its text
    created_at bigint not null,
    edited_at bigint,                        -- when its text was last changed
    deleted_at bigint,                       -- since when its text is hidden
    deleted_by bigint,                       -- the moderator who deleted it, if not its author
    -- The reactions as they are shown: a JSON array of [emoji, count, [name, ...]] with the first
    -- names, in the order in which each emoji was first used. Null for none.
    reactions text
);
create index messages_room on messages (room_id, id);
create unique index messages_made on messages (room_id, made);
create index messages_changed on messages (room_id, changed);
create index messages_worded on messages (room_id, worded);
create unique index messages_key on messages (user_id, key) where key is not null;

-- This user reacted to the message with this emoji.
create table reactions (
    id bigint generated always as identity primary key, -- gives the order in which people reacted
    message_id bigint not null references messages (id) on delete cascade,
    room_id bigint not null,                 -- the room of the message
    user_id bigint not null references users (id) on delete cascade,
    emoji text not null,
    name text not null,                      -- the user's name at that time
    created_at bigint not null,
    unique (message_id, emoji, user_id)
);
create index reactions_first on reactions (message_id, emoji, id);
create index reactions_of_message on reactions (message_id, id);
create index reactions_mine on reactions (user_id, room_id, message_id);

-- The user belongs to the room permanently: they wrote there, or it is a private room with messages.
-- The columns from with_id on are for the unread marks of private rooms.
create table users_subscribed (
    user_id bigint not null references users (id) on delete cascade,
    room_id bigint not null references rooms (id) on delete cascade,
    since bigint not null,
    with_id bigint references users (id) on delete cascade, -- the other person of a private room
    last_message_id bigint not null default 0,
    read_message_id bigint not null default 0,
    unread bigint not null default 0,        -- messages of the other person after read_message_id, up to 100
    primary key (user_id, room_id)
);
create index users_subscribed_mine on users_subscribed (user_id, (unread > 0), last_message_id)
    where with_id is not null;
create index users_subscribed_groups on users_subscribed (user_id, since) where with_id is null;
create index users_subscribed_room on users_subscribed (room_id);
create index users_subscribed_with on users_subscribed (with_id) where with_id is not null;

-- The client shows the room now and gets its pushes.
create table clients_active (
    client_id bigint primary key references clients (id) on delete cascade,
    room_id bigint not null references rooms (id) on delete cascade,
    user_id bigint not null,                 -- the user of the client
    entered_at bigint not null
);
create index clients_active_room on clients_active (room_id, entered_at, client_id);
create index clients_active_person on clients_active (room_id, user_id, entered_at, client_id);

-- Counts the people in a room. The room is locked before checking who else is there, so that if two
-- nodes do this at once, the second sees what the first has done.
create function count_whoever_comes() returns trigger language plpgsql as $$
begin
    perform 1 from rooms where id = new.room_id for no key update;
    if not exists (select 1 from clients_active a where a.room_id = new.room_id
        and a.user_id = new.user_id and a.client_id <> new.client_id) then
        update rooms set people = people + 1 where id = new.room_id;
    end if;
    return null;
end $$;
-- Several clients of one person may leave at once. The person is counted once.
create function count_whoever_goes() returns trigger language plpgsql as $$
begin
    perform 1 from rooms where id in (select room_id from gone) order by id for no key update;
    update rooms r set people = r.people - g.people from (
        select d.room_id, count(distinct d.user_id) as people from gone d
        where not exists (select 1 from clients_active a
            where a.room_id = d.room_id and a.user_id = d.user_id)
        group by d.room_id) g
    where r.id = g.room_id;
    return null;
end $$;
create trigger clients_active_enter after insert on clients_active
    for each row execute function count_whoever_comes();
create trigger clients_active_leave after delete on clients_active
    referencing old table as gone for each statement execute function count_whoever_goes();

-- A link that makes one visitor a moderator.
create table admin_links (
    token_hash bytea primary key,
    made_at bigint not null
);

-- An action of a moderator, as a text with the names of that time.
create table deeds (
    id bigint generated always as identity primary key,
    at bigint not null,
    moderator_id bigint,                     -- null: the server's command line
    moderator text not null,                 -- the moderator's name at that time
    deed text not null
);
