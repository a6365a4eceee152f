
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

CREATE FUNCTION public.count_whoever_comes() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    perform 1 from rooms where id = new.room_id for no key update;
    if not exists (select 1 from clients_active a where a.room_id = new.room_id
        and a.user_id = new.user_id and a.client_id <> new.client_id) then
        update rooms set people = people + 1 where id = new.room_id;
    end if;
    return null;
end $$;

CREATE FUNCTION public.count_whoever_goes() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION public.millis() RETURNS bigint
    LANGUAGE sql
    AS $$ select floor(extract(epoch from clock_timestamp()) * 1000)::bigint $$;

SET default_tablespace = '';

SET default_table_access_method = heap;

CREATE TABLE public.admin_links (
    token_hash bytea NOT NULL,
    made_at bigint NOT NULL
);

CREATE TABLE public.clients (
    id bigint NOT NULL,
    user_id bigint NOT NULL,
    guest boolean DEFAULT true NOT NULL,
    session_id bigint,
    node_id bigint NOT NULL,
    visit bigint DEFAULT 0 NOT NULL,
    token_hash bytea NOT NULL,
    arrived_at bigint NOT NULL,
    left_at bigint,
    cut_off boolean DEFAULT false NOT NULL
);

CREATE TABLE public.clients_active (
    client_id bigint NOT NULL,
    room_id bigint NOT NULL,
    user_id bigint NOT NULL,
    entered_at bigint NOT NULL
);

ALTER TABLE public.clients ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.clients_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.deeds (
    id bigint NOT NULL,
    at bigint NOT NULL,
    moderator_id bigint,
    moderator text NOT NULL,
    deed text NOT NULL
);

ALTER TABLE public.deeds ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.deeds_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.life (
    is_one boolean DEFAULT true NOT NULL,
    history bigint NOT NULL,
    mark text NOT NULL,
    identity uuid NOT NULL,
    CONSTRAINT life_is_one_check CHECK (is_one)
);

CREATE TABLE public.messages (
    id bigint NOT NULL,
    room_id bigint NOT NULL,
    user_id bigint NOT NULL,
    author_name text NOT NULL,
    text text NOT NULL,
    key uuid,
    made bigint NOT NULL,
    changed bigint NOT NULL,
    worded bigint NOT NULL,
    created_at bigint NOT NULL,
    edited_at bigint,
    deleted_at bigint,
    deleted_by bigint,
    reactions text
);

ALTER TABLE public.messages ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.messages_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.nodes (
    id bigint NOT NULL,
    lease_until bigint NOT NULL
);

CREATE TABLE public.reactions (
    id bigint NOT NULL,
    message_id bigint NOT NULL,
    room_id bigint NOT NULL,
    user_id bigint NOT NULL,
    emoji text NOT NULL,
    name text NOT NULL,
    created_at bigint NOT NULL
);

ALTER TABLE public.reactions ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.reactions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.room_histories (
    room_id bigint NOT NULL,
    first_version bigint NOT NULL,
    history bigint NOT NULL
);

CREATE TABLE public.rooms (
    id bigint NOT NULL,
    kind text NOT NULL,
    name text,
    name_key text COLLATE pg_catalog."C",
    "position" bigint,
    user_low bigint,
    user_high bigint,
    version bigint DEFAULT 0 NOT NULL,
    history bigint DEFAULT 0 NOT NULL,
    people bigint DEFAULT 0 NOT NULL,
    created_at bigint NOT NULL,
    restricted_at bigint,
    removed_at bigint,
    CONSTRAINT rooms_check CHECK (
CASE kind
    WHEN 'group'::text THEN ((name IS NOT NULL) AND (name_key IS NOT NULL) AND (user_low IS NULL) AND (user_high IS NULL))
    ELSE ((name IS NULL) AND (name_key IS NULL) AND (user_low IS NOT NULL) AND (user_high IS NOT NULL) AND (user_low < user_high))
END),
    CONSTRAINT rooms_kind_check CHECK ((kind = ANY (ARRAY['group'::text, 'private'::text])))
);

CREATE TABLE public.schema_version (
    version bigint NOT NULL
);

CREATE TABLE public.sessions (
    id bigint NOT NULL,
    user_id bigint NOT NULL,
    token_hash bytea NOT NULL,
    made_at bigint NOT NULL,
    seen_at bigint NOT NULL
);

ALTER TABLE public.sessions ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.sessions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.users (
    id bigint NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    email text NOT NULL COLLATE pg_catalog."C",
    display_name text,
    display_key text COLLATE pg_catalog."C",
    display_look text COLLATE pg_catalog."C",
    display_look_capitals text COLLATE pg_catalog."C",
    arrived_at bigint,
    traced_at bigint,
    free boolean DEFAULT true NOT NULL,
    gone_at bigint,
    shuffle bigint NOT NULL,
    password_hash text,
    kept_at bigint,
    moderator_at bigint,
    muted_at bigint,
    banned_at bigint,
    CONSTRAINT users_name_check CHECK ((name = lower(name)))
);

ALTER TABLE public.users ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.users_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.users_subscribed (
    user_id bigint NOT NULL,
    room_id bigint NOT NULL,
    since bigint NOT NULL,
    with_id bigint,
    last_message_id bigint DEFAULT 0 NOT NULL,
    read_message_id bigint DEFAULT 0 NOT NULL,
    unread bigint DEFAULT 0 NOT NULL
);

CREATE TABLE public.writers (
    id bigint NOT NULL,
    batch bigint NOT NULL,
    seen_at bigint NOT NULL
);

INSERT INTO public.admin_links VALUES ('\x0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a', 1795908897928);

INSERT INTO public.clients OVERRIDING SYSTEM VALUE VALUES (1, 1, true, NULL, 1, 0, '\x0101010101010101010101010101010101010101010101010101010101010101', 1795908896704, NULL, false);
INSERT INTO public.clients OVERRIDING SYSTEM VALUE VALUES (3, 3, true, NULL, 1, 0, '\x0303030303030303030303030303030303030303030303030303030303030303', 1795908896801, NULL, false);
INSERT INTO public.clients OVERRIDING SYSTEM VALUE VALUES (5, 5, true, NULL, 1, 0, '\x0505050505050505050505050505050505050505050505050505050505050505', 1795908896852, NULL, false);
INSERT INTO public.clients OVERRIDING SYSTEM VALUE VALUES (4, 4, false, 1, 1, 0, '\xe4e6964017855beae497bd2826af0c93562bd1de065761a9d4c31baf9d04ae16', 1795908896826, NULL, false);
INSERT INTO public.clients OVERRIDING SYSTEM VALUE VALUES (6, 6, true, NULL, 1, 0, '\x0606060606060606060606060606060606060606060606060606060606060606', 1795908896896, 1795908897910, false);
INSERT INTO public.clients OVERRIDING SYSTEM VALUE VALUES (2, 2, true, NULL, 1, 0, '\x0202020202020202020202020202020202020202020202020202020202020202', 1795908896770, 1795908897953, false);

INSERT INTO public.clients_active VALUES (5, 6952189240459654145, 5, 1795908897101);
INSERT INTO public.clients_active VALUES (1, 2553177962151381667, 1, 1795908897637);
INSERT INTO public.clients_active VALUES (4, 9076066160773013628, 4, 1795908897745);

INSERT INTO public.deeds OVERRIDING SYSTEM VALUE VALUES (1, 1795908896981, 3, 'carla', 'became a moderator');
INSERT INTO public.deeds OVERRIDING SYSTEM VALUE VALUES (2, 1795908897229, 3, 'carla', 'deleted message 5 of mal in #hi');
INSERT INTO public.deeds OVERRIDING SYSTEM VALUE VALUES (3, 1795908897505, 3, 'carla', 'restricted #secret to moderators');
INSERT INTO public.deeds OVERRIDING SYSTEM VALUE VALUES (4, 1795908897525, 3, 'carla', 'removed #gone');
INSERT INTO public.deeds OVERRIDING SYSTEM VALUE VALUES (5, 1795908897589, 3, 'carla', 'renamed #wrong to #right');
INSERT INTO public.deeds OVERRIDING SYSTEM VALUE VALUES (6, 1795908897893, 3, 'carla', 'muted eve');
INSERT INTO public.deeds OVERRIDING SYSTEM VALUE VALUES (7, 1795908897910, 3, 'carla', 'banned mal');

INSERT INTO public.life VALUES (true, 1787034788, '1795908895.577098 16384 16476', '520b8905-a722-4367-8467-f7d699440cc0');

INSERT INTO public.messages OVERRIDING SYSTEM VALUE VALUES (2, 6952189240459654145, 2, 'bob', 'by key', '00000000-0000-0000-6f76-657277697265', 2, 2, 2, 1795908897164, NULL, NULL, NULL, NULL);
INSERT INTO public.messages OVERRIDING SYSTEM VALUE VALUES (3, 6952189240459654145, 1, 'Аня ☃', 'edited', NULL, 3, 4, 4, 1795908897193, 1795908897202, NULL, NULL, NULL);
INSERT INTO public.messages OVERRIDING SYSTEM VALUE VALUES (4, 6952189240459654145, 2, 'bob', 'regretted', NULL, 5, 6, 6, 1795908897209, NULL, 1795908897215, NULL, NULL);
INSERT INTO public.messages OVERRIDING SYSTEM VALUE VALUES (5, 6952189240459654145, 6, 'mal', 'bad', NULL, 7, 8, 8, 1795908897225, NULL, 1795908897229, 3, NULL);
INSERT INTO public.messages OVERRIDING SYSTEM VALUE VALUES (1, 6952189240459654145, 1, 'Аня ☃', 'first
line, “two” 	\N\ % ''q'' 𝄞', NULL, 1, 16, 1, 1795908897125, NULL, NULL, NULL, '[["👍",2,["bob","carla"]],["🎉",1,["bob"]],["❤️",1,["bob"]],["😂",1,["bob"]],["🏳️‍🌈",1,["bob"]]]');
INSERT INTO public.messages OVERRIDING SYSTEM VALUE VALUES (6, 6624864567949311623, 1, 'Аня ☃', '日本語', NULL, 1, 1, 1, 1795908897389, NULL, NULL, NULL, NULL);
INSERT INTO public.messages OVERRIDING SYSTEM VALUE VALUES (7, 7512029137007666323, 1, 'Аня ☃', 'Ελλάδα', NULL, 1, 1, 1, 1795908897410, NULL, NULL, NULL, NULL);
INSERT INTO public.messages OVERRIDING SYSTEM VALUE VALUES (8, 5515077464720595862, 1, 'Аня ☃', 'secret', NULL, 1, 1, 1, 1795908897419, NULL, NULL, NULL, NULL);
INSERT INTO public.messages OVERRIDING SYSTEM VALUE VALUES (9, 3549653876946977628, 1, 'Аня ☃', 'gone', NULL, 1, 1, 1, 1795908897434, NULL, NULL, NULL, NULL);
INSERT INTO public.messages OVERRIDING SYSTEM VALUE VALUES (10, 3883788766899594932, 1, 'Аня ☃', 'wrong', NULL, 1, 1, 1, 1795908897493, NULL, NULL, NULL, NULL);
INSERT INTO public.messages OVERRIDING SYSTEM VALUE VALUES (11, 2553177962151381667, 1, 'Аня ☃', 'read', NULL, 1, 1, 1, 1795908897677, NULL, NULL, NULL, NULL);
INSERT INTO public.messages OVERRIDING SYSTEM VALUE VALUES (12, 2553177962151381667, 1, 'Аня ☃', 'unread', NULL, 2, 2, 2, 1795908897705, NULL, NULL, NULL, NULL);
INSERT INTO public.messages OVERRIDING SYSTEM VALUE VALUES (13, 6952189240459654145, 3, 'carla', 'last', NULL, 17, 17, 17, 1795908897985, NULL, NULL, NULL, NULL);

INSERT INTO public.nodes VALUES (1, 1795908911896);

INSERT INTO public.reactions OVERRIDING SYSTEM VALUE VALUES (1, 1, 6952189240459654145, 2, '👍', 'bob', 1795908897246);
INSERT INTO public.reactions OVERRIDING SYSTEM VALUE VALUES (2, 1, 6952189240459654145, 2, '🎉', 'bob', 1795908897257);
INSERT INTO public.reactions OVERRIDING SYSTEM VALUE VALUES (3, 1, 6952189240459654145, 2, '❤️', 'bob', 1795908897270);
INSERT INTO public.reactions OVERRIDING SYSTEM VALUE VALUES (4, 1, 6952189240459654145, 2, '😂', 'bob', 1795908897284);
INSERT INTO public.reactions OVERRIDING SYSTEM VALUE VALUES (5, 1, 6952189240459654145, 2, '🏳️‍🌈', 'bob', 1795908897297);
INSERT INTO public.reactions OVERRIDING SYSTEM VALUE VALUES (6, 1, 6952189240459654145, 3, '👍', 'carla', 1795908897316);

INSERT INTO public.room_histories VALUES (6952189240459654145, 1, 1787034788);
INSERT INTO public.room_histories VALUES (6624864567949311623, 1, 1787034788);
INSERT INTO public.room_histories VALUES (7512029137007666323, 1, 1787034788);
INSERT INTO public.room_histories VALUES (5515077464720595862, 1, 1787034788);
INSERT INTO public.room_histories VALUES (3549653876946977628, 1, 1787034788);
INSERT INTO public.room_histories VALUES (3883788766899594932, 1, 1787034788);
INSERT INTO public.room_histories VALUES (2553177962151381667, 1, 1787034788);

INSERT INTO public.rooms VALUES (5680749498621852673, 'group', 'python', 'python', 2, NULL, NULL, 0, 0, 0, 1795908896637, NULL, NULL);
INSERT INTO public.rooms VALUES (5124614605202641921, 'group', 'events', 'events', 3, NULL, NULL, 0, 0, 0, 1795908896637, NULL, NULL);
INSERT INTO public.rooms VALUES (173713361584608257, 'group', 'off-topic', 'off-topic', 4, NULL, NULL, 0, 0, 0, 1795908896637, NULL, NULL);
INSERT INTO public.rooms VALUES (6624864567949311623, 'group', '日本語', '日本語', NULL, NULL, NULL, 1, 1787034788, 0, 1795908897381, NULL, NULL);
INSERT INTO public.rooms VALUES (7512029137007666323, 'group', 'Ελλάδα', 'ελλάδα', NULL, NULL, NULL, 1, 1787034788, 0, 1795908897404, NULL, NULL);
INSERT INTO public.rooms VALUES (5515077464720595862, 'group', 'secret', '!secret', NULL, NULL, NULL, 1, 1787034788, 0, 1795908897413, 1795908897505, NULL);
INSERT INTO public.rooms VALUES (3549653876946977628, 'group', 'gone', '~3549653876946977628', NULL, NULL, NULL, 1, 1787034788, 0, 1795908897426, NULL, 1795908897525);
INSERT INTO public.rooms VALUES (3883788766899594932, 'group', 'right', 'right', NULL, NULL, NULL, 1, 1787034788, 0, 1795908897442, NULL, NULL);
INSERT INTO public.rooms VALUES (2553177962151381667, 'private', NULL, NULL, NULL, 1, 2, 2, 1787034788, 1, 1795908897637, NULL, NULL);
INSERT INTO public.rooms VALUES (9076066160773013628, 'private', NULL, NULL, NULL, 4, 5, 0, 0, 1, 1795908897745, NULL, NULL);
INSERT INTO public.rooms VALUES (6952189240459654145, 'group', 'hi', 'hi', 1, NULL, NULL, 17, 1787034788, 1, 1795908896637, NULL, NULL);

INSERT INTO public.schema_version VALUES (1);

INSERT INTO public.sessions OVERRIDING SYSTEM VALUE VALUES (1, 4, '\x0808080808080808080808080808080808080808080808080808080808080808', 1795908897797, 1795908897797);

INSERT INTO public.users OVERRIDING SYSTEM VALUE VALUES (7, 'seed0', 'seed0@example.com', NULL, NULL, NULL, NULL, NULL, NULL, true, NULL, 5860192980834199554, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.users OVERRIDING SYSTEM VALUE VALUES (8, 'seed1', 'seed1@example.com', NULL, NULL, NULL, NULL, NULL, NULL, true, NULL, 8017799752835393157, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.users OVERRIDING SYSTEM VALUE VALUES (9, 'seed2', 'seed2@example.com', NULL, NULL, NULL, NULL, NULL, NULL, true, NULL, -7351712059363074166, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.users OVERRIDING SYSTEM VALUE VALUES (10, 'seed3', 'seed3@example.com', NULL, NULL, NULL, NULL, NULL, NULL, true, NULL, 5295407206826825738, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.users OVERRIDING SYSTEM VALUE VALUES (11, 'seed4', 'seed4@example.com', NULL, NULL, NULL, NULL, NULL, NULL, true, NULL, -4894456789700308270, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.users OVERRIDING SYSTEM VALUE VALUES (3, 'carla', 'carla@example.com', NULL, NULL, NULL, NULL, 1795908896801, 1795908896981, false, NULL, -5595464138266046121, NULL, NULL, 1795908896981, NULL, NULL);
INSERT INTO public.users OVERRIDING SYSTEM VALUE VALUES (1, 'anna', 'anna@example.com', 'Аня ☃', 'аня ☃', 'aʜᴙ☃', 'ahᴙ☃', 1795908896704, 1795908896997, false, NULL, 763879993755319341, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.users OVERRIDING SYSTEM VALUE VALUES (2, 'bob', 'bob@example.com', NULL, NULL, NULL, NULL, 1795908896770, 1795908897164, false, NULL, -3773709477189010608, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.users OVERRIDING SYSTEM VALUE VALUES (4, 'dora', 'dora@example.com', NULL, NULL, NULL, NULL, 1795908896826, 1795908897361, false, NULL, -2584877606427215905, 'hers', 1795908897797, NULL, NULL, NULL);
INSERT INTO public.users OVERRIDING SYSTEM VALUE VALUES (5, 'eve', 'eve@example.com', NULL, NULL, NULL, NULL, 1795908896852, 1795908897893, false, NULL, -1058736411435600546, NULL, NULL, NULL, 1795908897893, NULL);
INSERT INTO public.users OVERRIDING SYSTEM VALUE VALUES (6, 'mal', 'mal@example.com', NULL, NULL, NULL, NULL, 1795908896896, 1795908897225, false, NULL, 4032020553702785068, NULL, NULL, NULL, NULL, 1795908897910);

INSERT INTO public.users_subscribed VALUES (1, 6952189240459654145, 1795908897125, NULL, 0, 0, 0);
INSERT INTO public.users_subscribed VALUES (2, 6952189240459654145, 1795908897164, NULL, 0, 0, 0);
INSERT INTO public.users_subscribed VALUES (6, 6952189240459654145, 1795908897225, NULL, 0, 0, 0);
INSERT INTO public.users_subscribed VALUES (1, 6624864567949311623, 1795908897381, NULL, 0, 0, 0);
INSERT INTO public.users_subscribed VALUES (1, 7512029137007666323, 1795908897404, NULL, 0, 0, 0);
INSERT INTO public.users_subscribed VALUES (1, 5515077464720595862, 1795908897413, NULL, 0, 0, 0);
INSERT INTO public.users_subscribed VALUES (1, 3883788766899594932, 1795908897442, NULL, 0, 0, 0);
INSERT INTO public.users_subscribed VALUES (1, 2553177962151381667, 1795908897677, 2, 12, 0, 0);
INSERT INTO public.users_subscribed VALUES (2, 2553177962151381667, 1795908897677, 1, 12, 11, 1);
INSERT INTO public.users_subscribed VALUES (3, 6952189240459654145, 1795908897985, NULL, 0, 0, 0);

INSERT INTO public.writers VALUES (-2770427459158849057, 54, 1795908897984);

SELECT pg_catalog.setval('public.clients_id_seq', 6, true);

SELECT pg_catalog.setval('public.deeds_id_seq', 7, true);

SELECT pg_catalog.setval('public.messages_id_seq', 13, true);

SELECT pg_catalog.setval('public.reactions_id_seq', 7, true);

SELECT pg_catalog.setval('public.sessions_id_seq', 2, true);

SELECT pg_catalog.setval('public.users_id_seq', 11, true);

ALTER TABLE ONLY public.admin_links
    ADD CONSTRAINT admin_links_pkey PRIMARY KEY (token_hash);

ALTER TABLE ONLY public.clients_active
    ADD CONSTRAINT clients_active_pkey PRIMARY KEY (client_id);

ALTER TABLE ONLY public.clients
    ADD CONSTRAINT clients_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.clients
    ADD CONSTRAINT clients_token_hash_key UNIQUE (token_hash);

ALTER TABLE ONLY public.deeds
    ADD CONSTRAINT deeds_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.life
    ADD CONSTRAINT life_pkey PRIMARY KEY (is_one);

ALTER TABLE ONLY public.messages
    ADD CONSTRAINT messages_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.nodes
    ADD CONSTRAINT nodes_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.reactions
    ADD CONSTRAINT reactions_message_id_emoji_user_id_key UNIQUE (message_id, emoji, user_id);

ALTER TABLE ONLY public.reactions
    ADD CONSTRAINT reactions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.room_histories
    ADD CONSTRAINT room_histories_pkey PRIMARY KEY (room_id, first_version);

ALTER TABLE ONLY public.rooms
    ADD CONSTRAINT rooms_name_key_key UNIQUE (name_key);

ALTER TABLE ONLY public.rooms
    ADD CONSTRAINT rooms_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.rooms
    ADD CONSTRAINT rooms_user_low_user_high_key UNIQUE (user_low, user_high);

ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT sessions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT sessions_token_hash_key UNIQUE (token_hash);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_email_key UNIQUE (email);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_name_key UNIQUE (name);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.users_subscribed
    ADD CONSTRAINT users_subscribed_pkey PRIMARY KEY (user_id, room_id);

ALTER TABLE ONLY public.writers
    ADD CONSTRAINT writers_pkey PRIMARY KEY (id);

CREATE INDEX clients_active_person ON public.clients_active USING btree (room_id, user_id, entered_at, client_id);

CREATE INDEX clients_active_room ON public.clients_active USING btree (room_id, entered_at, client_id);

CREATE UNIQUE INDEX clients_guest ON public.clients USING btree (user_id) WHERE guest;

CREATE INDEX clients_here ON public.clients USING btree (arrived_at, id) WHERE (left_at IS NULL);

CREATE INDEX clients_left ON public.clients USING btree (left_at) WHERE (left_at IS NOT NULL);

CREATE INDEX clients_node ON public.clients USING btree (node_id) WHERE (left_at IS NULL);

CREATE INDEX clients_person ON public.clients USING btree (user_id, arrived_at, id) WHERE (left_at IS NULL);

CREATE INDEX clients_session ON public.clients USING btree (session_id) WHERE (session_id IS NOT NULL);

CREATE INDEX clients_user ON public.clients USING btree (user_id);

CREATE INDEX messages_changed ON public.messages USING btree (room_id, changed);

CREATE UNIQUE INDEX messages_key ON public.messages USING btree (user_id, key) WHERE (key IS NOT NULL);

CREATE UNIQUE INDEX messages_made ON public.messages USING btree (room_id, made);

CREATE INDEX messages_room ON public.messages USING btree (room_id, id);

CREATE INDEX messages_worded ON public.messages USING btree (room_id, worded);

CREATE INDEX reactions_first ON public.reactions USING btree (message_id, emoji, id);

CREATE INDEX reactions_mine ON public.reactions USING btree (user_id, room_id, message_id);

CREATE INDEX reactions_of_message ON public.reactions USING btree (message_id, id);

CREATE UNIQUE INDEX room_histories_history ON public.room_histories USING btree (room_id, history);

CREATE INDEX rooms_busiest ON public.rooms USING btree (people DESC, name_key) WHERE (kind = 'group'::text);

CREATE INDEX rooms_closed ON public.rooms USING btree (id) WHERE ((restricted_at IS NOT NULL) OR (removed_at IS NOT NULL));

CREATE INDEX rooms_default ON public.rooms USING btree ("position") WHERE ("position" IS NOT NULL);

CREATE INDEX rooms_high ON public.rooms USING btree (user_high) WHERE (user_high IS NOT NULL);

CREATE INDEX rooms_restricted ON public.rooms USING btree (name_key) WHERE (restricted_at IS NOT NULL);

CREATE INDEX sessions_seen ON public.sessions USING btree (seen_at);

CREATE INDEX sessions_user ON public.sessions USING btree (user_id);

CREATE INDEX users_display_key ON public.users USING btree (display_key) WHERE (display_key IS NOT NULL);

CREATE UNIQUE INDEX users_display_look ON public.users USING btree (display_look) WHERE (display_look IS NOT NULL);

CREATE UNIQUE INDEX users_display_look_capitals ON public.users USING btree (display_look_capitals) WHERE (display_look_capitals IS NOT NULL);

CREATE INDEX users_free ON public.users USING btree (shuffle) WHERE free;

CREATE INDEX users_gone ON public.users USING btree (gone_at) WHERE (gone_at IS NOT NULL);

CREATE INDEX users_look ON public.users USING btree (replace(replace(replace(replace(name, 'm'::text, 'rn'::text), '0'::text, 'o'::text), '1'::text, 'l'::text), 'i'::text, 'l'::text));

CREATE INDEX users_people ON public.users USING btree (name) WHERE (arrived_at IS NOT NULL);

CREATE INDEX users_subscribed_groups ON public.users_subscribed USING btree (user_id, since) WHERE (with_id IS NULL);

CREATE INDEX users_subscribed_mine ON public.users_subscribed USING btree (user_id, ((unread > 0)), last_message_id) WHERE (with_id IS NOT NULL);

CREATE INDEX users_subscribed_room ON public.users_subscribed USING btree (room_id);

CREATE INDEX users_subscribed_with ON public.users_subscribed USING btree (with_id) WHERE (with_id IS NOT NULL);

CREATE TRIGGER clients_active_enter AFTER INSERT ON public.clients_active FOR EACH ROW EXECUTE FUNCTION public.count_whoever_comes();

CREATE TRIGGER clients_active_leave AFTER DELETE ON public.clients_active REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.count_whoever_goes();

ALTER TABLE ONLY public.clients_active
    ADD CONSTRAINT clients_active_client_id_fkey FOREIGN KEY (client_id) REFERENCES public.clients(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.clients_active
    ADD CONSTRAINT clients_active_room_id_fkey FOREIGN KEY (room_id) REFERENCES public.rooms(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.clients
    ADD CONSTRAINT clients_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.sessions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.clients
    ADD CONSTRAINT clients_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.messages
    ADD CONSTRAINT messages_room_id_fkey FOREIGN KEY (room_id) REFERENCES public.rooms(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.messages
    ADD CONSTRAINT messages_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.reactions
    ADD CONSTRAINT reactions_message_id_fkey FOREIGN KEY (message_id) REFERENCES public.messages(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.reactions
    ADD CONSTRAINT reactions_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.room_histories
    ADD CONSTRAINT room_histories_room_id_fkey FOREIGN KEY (room_id) REFERENCES public.rooms(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rooms
    ADD CONSTRAINT rooms_user_high_fkey FOREIGN KEY (user_high) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rooms
    ADD CONSTRAINT rooms_user_low_fkey FOREIGN KEY (user_low) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT sessions_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.users_subscribed
    ADD CONSTRAINT users_subscribed_room_id_fkey FOREIGN KEY (room_id) REFERENCES public.rooms(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.users_subscribed
    ADD CONSTRAINT users_subscribed_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.users_subscribed
    ADD CONSTRAINT users_subscribed_with_id_fkey FOREIGN KEY (with_id) REFERENCES public.users(id) ON DELETE CASCADE;

