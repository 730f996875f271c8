"""Leaves of the sample shop: electronics, sports, toys, pets. See `vocabulary` for the notation."""

from __future__ import annotations

LEAVES = """
# Electronics > Audio > Headphones | 19-399 | Phone Cases; Chargers
type: wireless earbuds; over-ear headphones; gaming headset; sport earphones
colour: black; white; navy; rose gold
battery: 6 h; 20 h; 30 h; 50 h
connection: Bluetooth 5.3; USB-C; 3.5 mm jack; 2.4 GHz
+ active noise cancelling; memory foam pads; detachable microphone; multipoint pairing; charging case; low-latency mode
~ sound quality; battery life; ear pads; bass; microphone; comfort
@ commuting; long flights; gaming nights; gym sessions

# Electronics > Audio > Speakers | 25-449 | Chargers; Headphones
type: portable speaker; soundbar; bookshelf speaker; smart speaker
colour: black; teal; sand; red
power: 10 W; 30 W; 60 W; 120 W
connection: Bluetooth 5.3; HDMI ARC; Wi-Fi; optical
+ waterproof shell; passive radiators; stereo pairing; voice assistant; wall brackets
~ bass; volume; battery life; pairing; remote
@ beach days; film nights; kitchen radio; small flats

# Electronics > Computers > Laptops | 299-2199 | Laptop Bags; Monitors
type: gaming laptop; ultrabook; 2-in-1 laptop; student laptop
memory: 8 GB; 16 GB; 32 GB
storage: 256 GB SSD; 512 GB SSD; 1 TB SSD
screen: 13.3 in; 14 in; 15.6 in; 17.3 in
colour: silver; graphite; midnight blue
+ backlit keyboard; fingerprint reader; aluminium chassis; 144 Hz panel; fast charging; dual fans
~ battery life; keyboard; screen; fan noise; trackpad; speakers
@ video editing; online classes; travel; esports

# Electronics > Computers > Monitors | 99-899 | Laptops; Desks
type: curved monitor; 4K monitor; portable monitor; ultrawide monitor
size: 15.6 in; 24 in; 27 in; 34 in
refresh rate: 60 Hz; 75 Hz; 144 Hz; 240 Hz
panel: IPS panel; VA panel; OLED panel
+ height-adjustable stand; USB-C power delivery; blue light filter; thin bezels; VESA mount
~ colours; stand; brightness; ports; refresh rate
@ photo editing; spreadsheets; console gaming; coding

# Electronics > Computers > Laptop Bags | 15-159 | Laptops; Chargers
type: laptop sleeve; messenger bag; laptop backpack
fits: 13.3 in; 14 in; 15.6 in; 17.3 in
material: canvas; neoprene; recycled nylon; vegan leather
colour: black; olive; tan; graphite
+ water-repellent shell; luggage strap; hidden pocket; padded compartment; lockable zips
~ zips; padding; strap; pockets; stitching
@ daily commutes; business trips; campus days; cycling to work

# Electronics > Phones > Phone Cases | 7-59 | Chargers; Headphones
type: silicone case; wallet case; rugged case; clear case
fits: Orvo 12; Orvo 12 Pro; Lumen X5; Lumen X5 Max; Quill 8
colour: black; clear; lilac; forest green; red
+ raised camera lip; magnetic ring; shock-absorbing corners; card slots; anti-yellowing coating
~ fit; grip; buttons; magnets; corners
@ clumsy hands; building sites; wireless charging; minimalists

# Electronics > Phones > Chargers | 9-99 | Phone Cases; Laptops
type: wall charger; power bank; wireless charging pad; car charger
output: 20 W; 30 W; 65 W; 100 W
ports: 1-port; 2-port; 4-port
capacity: 5,000 mAh; 10,000 mAh; 20,000 mAh
colour: black; white; slate
+ GaN technology; foldable plug; overheat protection; braided cable; LED display
~ charging speed; heat; cable; plug; size
@ weekend trips; crowded desks; airports; road trips

# Electronics > Photography > Cameras | 89-1899 | Camera Tripods; Chargers
type: mirrorless camera; action camera; instant camera; compact camera
resolution: 12 MP; 20 MP; 24 MP; 45 MP
zoom: 3x zoom; 8x zoom; 20x zoom
colour: black; silver; mint
+ image stabilisation; 4K video; articulating screen; weather sealing; eye-tracking autofocus
~ autofocus; battery life; image quality; menu; viewfinder
@ wildlife; family parties; vlogging; street photography

# Electronics > Photography > Camera Tripods | 15-299 | Cameras; Phone Cases
type: travel tripod; tabletop tripod; monopod; video tripod
material: aluminium; carbon fibre; ABS plastic
height: 20 cm; 120 cm; 150 cm; 180 cm
load: 1 kg; 3 kg; 8 kg
+ ball head; quick-release plate; twist locks; phone clamp; spiked feet
~ stability; weight; ball head; locks; bag
@ long exposures; group photos; hiking; product shots

# Sports > Running > Running Shoes | 45-219 | Sports Socks; Water Bottles
type: trail running shoes; road running shoes; racing flats; walking shoes
gender: men's; women's; kids'
size: UK 4; UK 6; UK 8; UK 9; UK 10; UK 12
colour: black; neon yellow; coral; white; royal blue
+ breathable mesh upper; carbon plate; grippy lugs; cushioned midsole; reflective heel tab
~ cushioning; fit; grip; toe box; laces; sole
@ marathons; muddy trails; daily miles; treadmill sessions

# Sports > Running > Sports Socks | 6-39 | Running Shoes
type: ankle socks; compression socks; crew socks; hiking socks
material: merino wool; bamboo viscose; recycled polyester; cotton
size: S; M; L; XL
pack: 1-pack; 3-pack; 6-pack
colour: black; white; grey; orange
+ seamless toe; arch support; blister-free heel; odour control; ventilated mesh
~ fit; elastic; thickness; seams; smell
@ long runs; night shifts; winter walks; tennis

# Sports > Fitness > Yoga Mats | 14-129 | Dumbbells; Water Bottles
type: yoga mat; pilates mat; travel mat; exercise mat
thickness: 3 mm; 5 mm; 8 mm; 15 mm
material: natural rubber; TPE foam; cork; NBR foam
colour: plum; sage; black; sky blue
+ non-slip texture; alignment lines; carry strap; closed-cell surface; tear-resistant core
~ grip; thickness; smell; strap; cushioning
@ hot yoga; stretching; sore knees; hotel workouts

# Sports > Fitness > Dumbbells | 12-399 | Yoga Mats; Water Bottles
type: adjustable dumbbell; hex dumbbell; kettlebell; weight plate
weight: 2 kg; 5 kg; 10 kg; 16 kg; 24 kg
material: cast iron; neoprene; rubber; vinyl
+ anti-roll heads; knurled handle; quick-change dial; floor-friendly coating; colour-coded weights
~ handle; coating; dial; smell; balance
@ home gyms; strength training; rehab; circuit classes

# Sports > Camping > Tents | 49-699 | Sleeping Bags; Camping Lanterns
type: dome tent; tunnel tent; pop-up tent; backpacking tent
capacity: 1-person; 2-person; 4-person; 6-person
season: 2-season; 3-season; 4-season
colour: olive; orange; sand
+ taped seams; blackout bedroom; aluminium poles; sewn-in groundsheet; mesh vents
~ waterproofing; poles; pitching; space; zips
@ festivals; family holidays; wild camping; windy hills

# Sports > Camping > Sleeping Bags | 25-349 | Tents; Camping Lanterns
type: mummy sleeping bag; rectangular sleeping bag; double sleeping bag; sleeping bag liner
temperature: 15 °C; 5 °C; 0 °C; -10 °C
fill: down fill; hollow-fibre fill; microfibre fill
colour: navy; red; moss
+ two-way zip; draught collar; compression sack; brushed lining; insulated hood
~ warmth; zip; length; pack size; lining
@ cold nights; summer festivals; sleepovers; alpine huts

# Sports > Camping > Camping Lanterns | 9-89 | Tents; Sleeping Bags
type: camping lantern; head torch; hand torch; string light
brightness: 150 lm; 400 lm; 1,000 lm
power source: rechargeable; AA batteries; solar
colour: black; yellow; green
+ red night mode; folding hook; IPX4 housing; tilting head; USB-C input
~ brightness; battery life; strap; hook; buttons
@ night hikes; power cuts; tent evenings; early runs

# Sports > Cycling > Bike Helmets | 19-229 | Water Bottles; Camping Lanterns
type: road bike helmet; mountain bike helmet; commuter helmet; kids' bike helmet
size: 48-52 cm; 52-56 cm; 56-60 cm; 60-64 cm
colour: matte black; white; lime; petrol blue
+ rear LED; rotational impact liner; magnetic buckle; removable visor; dial fit system
~ fit; ventilation; buckle; weight; visor
@ school runs; gravel rides; rush hour; downhill tracks

# Sports > Hydration > Water Bottles | 7-59 | Running Shoes; Yoga Mats
type: insulated bottle; squeeze bottle; glass bottle; hydration pack
capacity: 350 ml; 500 ml; 750 ml; 1 L; 2 L
material: stainless steel; Tritan plastic; borosilicate glass
colour: black; mint; coral; steel
+ leakproof cap; straw lid; double-wall vacuum; wide mouth; carry loop
~ lid; seal; insulation; straw; paint
@ hot days; spin classes; office desks; mountain hikes

# Toys > Construction > Building Blocks | 9-189 | Board Games; Remote Control Cars
type: building brick set; magnetic tile set; wooden block set; marble run
pieces: 40-piece; 100-piece; 280-piece; 600-piece
theme: castle theme; space theme; farm theme; city theme
age: 18 months+; 3 years+; 6 years+; 9 years+
+ rounded edges; bright non-toxic paint; storage tub; step-by-step booklet; strong magnets
~ magnets; instructions; pieces; colours; box
@ rainy afternoons; birthdays; classrooms; quiet play

# Toys > Games > Board Games | 9-89 | Jigsaw Puzzles; Building Blocks
type: strategy board game; party game; card game; cooperative board game
players: 1-4 players; 2-4 players; 2-6 players; 4-8 players
playing time: 15 min; 30 min; 60 min; 120 min
age: 6 years+; 8 years+; 12 years+; 14 years+
+ wooden tokens; illustrated cards; solo mode; linen-finish board; quick-start rules
~ rules; artwork; replay value; cards; components
@ family evenings; game clubs; travel; new players

# Toys > Games > Jigsaw Puzzles | 7-59 | Board Games
type: jigsaw puzzle; 3D puzzle; floor puzzle; wooden puzzle
pieces: 48-piece; 500-piece; 1,000-piece; 2,000-piece
theme: harbour theme; forest theme; map theme; cat theme
+ matte finish; reference poster; thick board; resealable bag; irregular cuts
~ fit; picture; thickness; pieces; dust
@ holidays; grandparents; long winters; mindful breaks

# Toys > Soft Toys > Plush Toys | 8-79 | Building Blocks; Jigsaw Puzzles
type: plush bear; plush rabbit; plush dinosaur; weighted plush
size: 20 cm; 35 cm; 50 cm; 80 cm
colour: honey; cream; grey; sea green
age: from birth; 12 months+; 3 years+
+ embroidered eyes; machine-washable cover; recycled filling; floppy ears; double-stitched seams
~ softness; stitching; eyes; filling; size
@ bedtime; newborn gifts; anxious sleepers; long drives

# Toys > Vehicles > Remote Control Cars | 19-249 | Building Blocks; Chargers
type: remote control car; rock crawler; stunt car; mini drone
scale: 1:10; 1:16; 1:24
top speed: 10 km/h; 20 km/h; 40 km/h
colour: red; blue; orange; black
+ four-wheel drive; two battery packs; 2.4 GHz transmitter; LED headlights; oil-filled shocks
~ battery life; speed; controller; tyres; range
@ gravel paths; living rooms; skate parks; first-time drivers

# Pets > Dogs > Dog Food | 6-99 | Dog Beds; Dog Leashes
type: dry dog food; wet dog food; puppy food; dog treats
flavour: chicken; salmon; lamb; duck; beef
weight: 400 g; 2 kg; 7 kg; 12 kg
+ grain-free recipe; omega-3 oils; single protein; resealable bag; added glucosamine
~ smell; kibble size; ingredients; bag; digestion
@ sensitive stomachs; fussy eaters; senior dogs; training

# Pets > Dogs > Dog Beds | 19-189 | Dog Food; Dog Leashes
type: orthopaedic dog bed; donut dog bed; crate mat; elevated dog bed
size: S; M; L; XL
colour: charcoal; beige; moss; dusty pink
material: faux fur; corduroy; canvas; microfibre
+ removable cover; memory foam base; anti-slip bottom; chew-resistant seams; water-resistant liner
~ cover; foam; size; zip; softness
@ older dogs; car boots; muddy paws; crate training

# Pets > Dogs > Dog Leashes | 7-59 | Dog Food; Dog Beds
type: retractable leash; rope leash; dog harness; hands-free leash
length: 1.2 m; 1.8 m; 3 m; 5 m
colour: red; black; turquoise; reflective orange
material: nylon; leather; climbing rope
+ padded handle; swivel clip; reflective stitching; one-button brake; bungee section
~ clip; handle; length; brake; stitching
@ strong pullers; evening walks; puppies; canicross

# Pets > Cats > Cat Litter | 6-49 | Cat Trees
type: clumping cat litter; wood pellet litter; silica cat litter; litter mat
weight: 4 kg; 8 kg; 15 kg
scent: unscented; lavender; fresh linen
+ low-dust granules; seven-day odour lock; biodegradable pellets; lightweight formula; fast clumping
~ dust; smell; clumping; tracking; bag
@ multi-cat homes; flats; kittens; sensitive noses

# Pets > Cats > Cat Trees | 25-219 | Cat Litter; Dog Beds
type: cat tree; scratching post; cat condo; window perch
height: 60 cm; 110 cm; 150 cm; 180 cm
colour: grey; beige; cream
material: sisal; plush; jute
+ padded hammock; anti-tip strap; replaceable posts; dangling balls; enclosed den
~ stability; sisal; assembly; platform; size
@ climbers; indoor cats; sunny windows; large breeds
"""
