"""Word lists of the sample web: one lexicon a topic, and the words that all topics share.

Nouns are countable and verbs are regular, so `prose` can inflect both by rule.
"""

from __future__ import annotations

TOPICS = {
    "hobby": """
n: model railway, loom, sketchbook, lathe, chisel, kite, stamp album, telescope, knitting pattern, aquarium,
beehive, chess club, kiln, origami crane, drone, ukulele, woodcut, terrarium, miniature, workbench, embroidery hoop,
metal detector, coin cabinet, puppet theatre, radio kit, calligraphy pen, jewellery box, quilt, weather station,
pocket knife
v: carve, stitch, assemble, collect, varnish, solder, sketch, polish, restore, engrave, sand, glue, crochet,
catalogue, trim, dye, mount, frame, whittle, tune
a: handmade, vintage, delicate, patient, wooden, miniature, tangled, rare, dusty, intricate, lopsided, glossy,
weathered, mechanical, whimsical, unfinished
t: craft fair, guild meeting, evening class, village hall, garden shed, swap table, online forum, annual
exhibition""",
    "news": """
n: council, minister, petition, ferry terminal, harbour wall, strike, budget, hospital wing, bypass, referendum,
mayor, planning committee, newspaper, tribunal, spokesperson, ballot, refinery, pension fund, protest, bridge,
inquiry, newsroom, coalition, levy, senator, border post, commuter line, flood barrier, campaign, charter
v: announce, postpone, approve, criticise, investigate, reject, propose, vote, negotiate, resign, demand, confirm,
delay, fund, review, condemn, publish, amend, nationalise, question
a: controversial, municipal, unanimous, regional, delayed, provisional, costly, public, disputed, bipartisan,
annual, confidential, embarrassing, overdue, electoral, temporary
t: press conference, town hall, parliament, district court, regional assembly, opening ceremony, evening bulletin,
committee room""",
    "fashion": """
n: hemline, runway, silhouette, designer, atelier, fabric, lapel, sequin, tailor, trouser, capsule wardrobe,
collection, cardigan, corset, brooch, pleat, seamstress, stylist, magazine cover, mannequin, trench coat, kimono,
heel, ruffle, collar, textile, weaver, muse, model, scarf
v: drape, tailor, layer, embroider, accessorise, hem, button, dye, showcase, swap, style, pleat, photograph,
reinvent, flatter, iron, parade, fasten, discard, admire
a: elegant, oversized, asymmetric, pastel, timeless, flamboyant, sheer, minimal, bohemian, sculptural, frayed,
monochrome, sustainable, bold, understated, velvety
t: fashion week, backstage corridor, flagship boutique, costume museum, photo studio, fabric market, graduate show,
fitting room""",
    "beauty": """
n: complexion, pigment, fragrance, ritual, serum, dermatologist, mirror, brush, eyeliner, pore, hairline, facial,
nail, perfumer, botanical, ingredient, palette, barber, salon, cuticle, manicure, lather, eyelash, fringe, clay
mask, wrinkle, freckle, beautician, lotion, curl
v: moisturise, exfoliate, cleanse, blend, soothe, brighten, rinse, massage, tint, contour, nourish, dab, hydrate,
patch-test, comb, lighten, plump, smudge, scrub, glow
a: radiant, dewy, fragrant, gentle, silky, flaky, hypoallergenic, luminous, herbal, dull, sensitive, smoky, natural,
greasy, soft, even
t: morning routine, dressing table, wellness retreat, training academy, make-up counter, bathroom shelf, steam room,
trade show""",
    "automotive": """
n: gearbox, carburettor, exhaust, chassis, dashboard, hatchback, mechanic, tyre, clutch, camshaft, radiator,
convertible, pit crew, battery pack, bonnet, spark plug, racetrack, lorry, suspension, alternator, brake pad, van,
driveshaft, fuel gauge, windscreen, test driver, axle, roadster, charging station, cylinder
v: repair, accelerate, rev, service, tow, corner, idle, calibrate, overheat, park, tighten, repaint, overhaul,
reverse, inspect, rattle, lubricate, steer, upgrade, replace
a: turbocharged, rusty, electric, fuel-efficient, roadworthy, noisy, aerodynamic, four-wheel, second-hand, diesel,
responsive, sluggish, chrome, mud-splattered, hybrid, reliable
t: motorway, workshop, classic car rally, assembly plant, mountain pass, car park, proving ground, scrapyard""",
    "food": """
n: dumpling, stew, sourdough, market stall, chef, spice, harvest, orchard, bakery, recipe, ladle, broth, cheese,
vineyard, mushroom, oven, apprentice cook, casserole, herb, kitchen, pickle, pastry, fishmonger, tasting menu,
pumpkin, onion, lemon tart, barrel, farmer, table
v: simmer, knead, roast, season, ferment, chop, whisk, marinate, caramelise, taste, bake, garnish, boil, pickle,
stir, smoke, peel, drizzle, toast, serve
a: savoury, tangy, crispy, smoky, fragrant, hearty, bitter, seasonal, buttery, rustic, spicy, tender, golden, local,
sticky, aromatic
t: harvest festival, farmers' market, dining room, cookery school, fishing port, night market, family kitchen,
smokehouse""",
    "sports": """
n: striker, goalkeeper, referee, penalty, relay team, coach, stadium, defender, medal, tournament, cyclist, podium,
sprinter, rower, captain, underdog, training ground, rival, league title, substitute, serve, marathon, gymnast,
trophy, locker room, swimmer, supporter, tackle, equaliser, bench
v: sprint, dribble, defend, tackle, train, qualify, serve, score, equalise, retire, sign, recover, dominate, pass,
volley, celebrate, referee, stumble, attack, outpace
a: unbeaten, exhausted, decisive, athletic, injured, fearless, defensive, dramatic, muddy, reigning, agile,
tactical, narrow, heroic, offside, relentless
t: semi-final, packed stadium, second half, training camp, Olympic village, home ground, velodrome, final lap""",
    "science": """
n: enzyme, telescope, hypothesis, particle, glacier, laboratory, specimen, microscope, orbit, fossil, neuron,
algorithm, isotope, bacterium, reactor, theorem, satellite, climate model, gene, catalyst, crystal, researcher,
sediment, laser, membrane, experiment, molecule, volcano, probe, sample
v: observe, measure, predict, hypothesise, calibrate, replicate, sequence, orbit, detect, simulate, dissolve,
classify, publish, analyse, magnify, evolve, react, cool, record, confirm
a: molecular, statistical, experimental, microscopic, volcanic, quantum, empirical, fossilised, unstable, genetic,
marine, theoretical, radioactive, precise, anomalous, peer-reviewed
t: research station, field season, observatory, annual symposium, particle accelerator, deep-sea expedition,
university archive, clean room""",
    "travel": """
n: lighthouse, caravan, hostel, itinerary, ferry, lagoon, guidebook, passport, monastery, cable car, ridge,
souvenir, village, night train, bazaar, harbour, ruin, pilgrim, footpath, waterfall, customs officer, island,
hammock, mountain hut, compass, backpack, fjord, viaduct, old town, tour guide
v: wander, hike, embark, explore, board, haggle, camp, sail, photograph, detour, arrive, trek, unpack, cross,
marvel, linger, navigate, return, climb, book
a: remote, cobbled, sunlit, bustling, foggy, scenic, ancient, coastal, alpine, deserted, winding, tropical, crowded,
medieval, tranquil, snow-capped
t: border crossing, fishing village, desert road, railway platform, southern coast, spice market, river delta, high
plateau""",
    "entertainment": """
n: director, screenplay, soundtrack, orchestra, audience, sequel, premiere, comedian, rehearsal, novelist,
documentary, chorus, drummer, stage, sitcom, playwright, festival, critic, studio, violinist, animation, box office,
villain, record label, encore, actor, puppet, cliffhanger, backdrop, ballad
v: perform, improvise, rehearse, direct, compose, applaud, premiere, record, narrate, edit, adapt, dance, audition,
animate, parody, tour, stream, script, film, headline
a: theatrical, acclaimed, melodic, suspenseful, deadpan, orchestral, experimental, cinematic, nostalgic, satirical,
haunting, animated, long-awaited, low-budget, lyrical, sold-out
t: opening night, concert hall, film festival, recording studio, summer tour, radio show, dress rehearsal, open-air
stage""",
    "health": """
n: clinic, nurse, symptom, vaccine, diagnosis, physiotherapist, diet, vitamin, migraine, surgeon, ward, heartbeat,
allergy, patient, therapy, joint, immune system, stretcher, prescription, sleep pattern, infection, muscle, waiting
room, blood test, antibody, recovery plan, midwife, posture, pharmacist, trial
v: diagnose, prescribe, recover, breathe, stretch, examine, inject, monitor, rest, vaccinate, relieve, exercise,
consult, bandage, heal, screen, hydrate, treat, sneeze, operate
a: chronic, preventive, clinical, restful, inflamed, healthy, contagious, mild, nutritious, dizzy, acute, gradual,
sedentary, balanced, postoperative, mindful
t: emergency department, clinical trial, rural practice, rehabilitation centre, check-up, maternity ward, health
survey, support group""",
    "gardening": """
n: compost heap, seedling, greenhouse, trellis, rosebush, wheelbarrow, bulb, allotment, hedge, slug, pond,
perennial, lawn, orchard tree, flowerpot, rake, topsoil, tulip, vegetable bed, pollinator, root, bamboo screen,
rainwater barrel, sunflower, fern, gardener, spade, wisteria, cutting, mulch layer
v: prune, sow, weed, water, transplant, mulch, harvest, bloom, fertilise, dig, germinate, rake, wilt, thin, plant,
graft, sprout, mow, shelter, pollinate
a: shady, fertile, evergreen, drought-tolerant, leafy, thorny, waterlogged, fragrant, hardy, overgrown, sandy,
frost-free, wild, climbing, organic, sun-loving
t: botanical garden, spring border, flower show, allotment society, kitchen garden, early autumn, walled garden,
seed swap""",
    "technology": """
n: processor, server, browser, developer, database, startup, firmware, password, robot, interface, data centre,
sensor, compiler, network, prototype, touchscreen, chip, bug, keyboard, programmer, patch, cloud service, encryption
key, router, benchmark, app store, neural network, hacker, terminal, roadmap
v: compile, encrypt, deploy, debug, reboot, upload, download, install, benchmark, patch, automate, scroll, sync,
crash, configure, program, migrate, scan, launch, outsource
a: wireless, open-source, scalable, encrypted, obsolete, virtual, modular, buggy, portable, cloud-based, intuitive,
digital, proprietary, low-latency, autonomous, backward-compatible
t: developer conference, server room, beta release, product launch, hackathon, security audit, research lab, code
review""",
    "finance": """
n: mortgage, interest rate, shareholder, dividend, savings account, auditor, invoice, bond, broker, inflation
figure, hedge fund, ledger, startup loan, credit union, pension, tax return, portfolio, merger, treasurer, quarterly
report, bank, insurer, currency, economist, deficit, subsidy, stock exchange, balance sheet, investor, premium
v: invest, audit, borrow, refinance, diversify, forecast, deduct, liquidate, insure, calculate, deposit, default,
merge, tax, trade, allocate, repay, value, reserve, hedge
a: fiscal, volatile, quarterly, taxable, solvent, prudent, long-term, bearish, unsecured, profitable, inflationary,
speculative, net, liquid, fixed-rate, cautious
t: trading floor, annual meeting, budget speech, central bank, rating agency, earnings call, tax office, credit
market""",
    "parenting": """
n: toddler, nursery, bedtime story, pushchair, tantrum, babysitter, lunch box, playground, teacher, nappy, homework,
grandparent, sibling, lullaby, teenager, school run, cot, midwife, picture book, birthday party, classroom, sandpit,
curfew, pocket money, daycare, swing, crayon, newborn, dummy, playdate
v: comfort, cuddle, teach, babysit, play, praise, negotiate, giggle, tidy, whisper, nap, pack, encourage, worry,
share, scold, crawl, listen, yawn, learn
a: sleepless, playful, messy, stubborn, curious, gentle, fussy, shy, bilingual, cheerful, overtired, proud,
energetic, patient, homemade, noisy
t: parents' evening, summer holiday, swimming lesson, first day of school, family dinner, weekend trip, reading
corner, school concert""",
    "history": """
n: emperor, manuscript, siege, cathedral, archaeologist, dynasty, treaty, aqueduct, merchant, galleon, chronicle,
fortress, monarch, excavation, abbey, guild, peasant, battlefield, parchment, tomb, explorer, archive, colony,
cavalry, trade route, relic, plague, knight, mosaic, inscription
v: conquer, excavate, govern, besiege, inherit, document, abolish, settle, translate, crown, rebel, colonise,
unearth, trade, preserve, banish, fortify, surrender, migrate, decipher
a: medieval, imperial, ancient, feudal, prehistoric, ruined, ceremonial, maritime, forgotten, royal, bronze,
illuminated, revolutionary, dynastic, colonial, monastic
t: royal court, burial mound, state archive, harbour excavation, coronation, old battlefield, trading post, museum
vault""",
}  # fmt: skip

FIRST_NAMES = """
Ada, Adil, Agnes, Alba, Amara, Anders, Anya, Arlo, Astrid, Aziz, Beatriz, Bela, Bruno, Carmen, Cedric, Chidi, Clara,
Dalia, Darius, Delia, Dmitri, Edith, Eitan, Elena, Emeka, Enzo, Esther, Farah, Felix, Fiona, Freya, Gael, Gita,
Greta, Hana, Hugo, Ida, Ines, Ivo, Jakub, Jana, Joaquin, Kaito, Karin, Kofi, Lars, Leila, Lior, Lucia, Malik, Marta,
Mateo, Mei, Milan, Mira, Nadia, Nils, Noor, Olga, Omar, Oskar, Paloma, Petra, Priya, Quentin, Rafael, Rania, Rosa,
Ruben, Sana, Selma, Silas, Sofia, Tariq, Tessa, Tomas, Uma, Viktor, Wanda, Yara, Yusuf, Zora"""
LAST_NAMES = """
Abara, Almgren, Aoki, Bakker, Banerjee, Barros, Brandt, Castell, Cho, Cordova, Dahl, Dekker, Desai, Drummond,
Eklund, Farouk, Fenwick, Ferreira, Galindo, Grady, Haddad, Halloran, Hartmann, Ibarra, Ilves, Jansen, Kaplan,
Keller, Kovac, Lindqvist, Lowell, Macleod, Marchetti, Mbeki, Moreau, Nakata, Novak, Obi, Okafor, Ortega, Palmer,
Petrov, Quint, Rahman, Reyes, Rossi, Sandoval, Santos, Sato, Schreiber, Silva, Soler, Sorensen, Tanaka, Thorne,
Ueda, Varga, Voss, Wainwright, Weber, Winslow, Yilmaz, Zhang, Ziegler"""
PLACES = """
Aldermoor, Ashgrove, Bellhaven, Birchport, Blackwater, Brackenridge, Calder Bay, Carrowmere, Castlebrook,
Copperfield, Cranleigh Sound, Dunmarsh, Eastvale, Elmsworth, Fairmont Quay, Fallowdale, Foxholme, Glenhaven,
Greyharbour, Hartswell, Hollowbrook, Ironbridge Cross, Juniper Falls, Kestrel Point, Kingsmoor, Larkspur,
Littleford, Longreach, Maplecross, Marlow Heath, Millbrook, Netherby, Northcliff, Oakhurst, Old Wharf, Pinewater,
Port Selwyn, Queensbury Dale, Ravenscar, Redhill Junction, Rosemarket, Saltmarsh, Seaview, Silverton, Southwold
Green, Stonebridge, Thornbury Lake, Upper Wick, Valcourt, Westhaven, Whitecombe, Willow End, Winterbourne,
Yarrowfield"""
SHARED_ADJECTIVES = """
quiet, sudden, ordinary, remarkable, familiar, strange, modest, ambitious, careful, unexpected, gradual, small,
large, early, late, difficult, simple, honest, popular, neglected, promising, awkward, generous, bright, dark,
heavy, light, narrow, broad, steady, curious, useful, clever, practical, ancient, fresh, lively, solemn, clumsy,
graceful, stubborn, fragile, sturdy, hidden, obvious, pale, vivid, distant, nearby, recent"""
SHARED_ADVERBS = """
slowly, quickly, carefully, quietly, rarely, often, suddenly, gradually, together, alone, eagerly, reluctantly,
barely, gladly, loudly, patiently, firmly, gently, boldly, nervously, frequently, briefly, thoroughly, openly,
secretly, calmly, proudly, happily, sadly, steadily"""
SHARED_VERBS = """
describe, remember, discover, borrow, repair, protect, collect, follow, finish, start, watch, carry, visit, explain,
compare, count, name, open, close, share, offer, promise, notice, change, improve, mention, ignore, invent, examine,
prepare, discuss, study, admire, order, gather, expect, question, support, avoid, recognise"""
SHARED_NOUNS = """
morning, letter, question, answer, idea, room, story, problem, decision, journey, neighbour, photograph, window,
door, road, river, rumour, mistake, tradition, habit, reason, plan, promise, secret, list, map, machine, corner,
crowd, voice, season, week, lesson, memory, detail, argument, friend, stranger, visitor, expert, volunteer, student,
teacher, manager, owner, critic, colleague, cousin, engineer, artist"""
TIMES = """
in the spring of {year}, last winter, by {year}, on a {day} morning, two years later, every {day}, for {number}
years, after {number} weeks, at the end of {month}, early in {month}, before dawn, in {month} {year}, during the
long summer, within {number} days, since {year}, late one {day} evening, the following {month}, {number} months
earlier, around noon, one {day} in {month}"""
DAYS = "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"
MONTHS = "January, February, March, April, May, June, July, August, September, October, November, December"
