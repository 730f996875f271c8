"""Leaves of the sample shop: fashion, beauty, grocery. See `vocabulary` for the notation."""

from __future__ import annotations

LEAVES = """
# Fashion > Women > Dresses | 19-189 | Jackets; Handbags
type: maxi dress; wrap dress; shirt dress; slip dress
size: XS; S; M; L; XL
colour: emerald; black; dusty pink; navy; ivory
material: viscose; linen; cotton poplin; satin
pattern: floral; plain; polka dot; striped
+ tie waist; side pockets; puff sleeves; concealed zip; adjustable straps
~ fit; fabric; length; colour; zip; lining
@ summer weddings; office days; city breaks; garden parties

# Fashion > Women > Handbags | 25-289 | Dresses; Watches
type: tote bag; crossbody bag; shoulder bag; clutch
material: vegan leather; suede; canvas; pebbled leather
colour: tan; black; burgundy; cream
+ detachable strap; magnetic closure; interior zip pocket; gold-tone hardware; structured base
~ strap; lining; zips; smell; space
@ evenings out; work essentials; weekend markets; travel days

# Fashion > Men > Shirts | 15-119 | Jeans; Jackets
type: Oxford shirt; flannel shirt; linen shirt; polo shirt
size: S; M; L; XL; XXL
colour: white; sky blue; charcoal; rust; olive
fit: slim fit; regular fit; relaxed fit
+ button-down collar; non-iron finish; curved hem; chest pocket; mother-of-pearl buttons
~ collar; fabric; fit; buttons; sleeves
@ interviews; warm evenings; layering; smart casual Fridays

# Fashion > Men > Jeans | 25-149 | Shirts; Jackets
type: straight jeans; skinny jeans; tapered jeans; bootcut jeans
waist: W28; W30; W32; W34; W36
colour: indigo; black; light wash; grey
material: stretch denim; raw denim; organic cotton denim
+ five-pocket cut; copper rivets; selvedge seam; reinforced knees; button fly
~ fit; stretch; colour; length; waistband
@ everyday wear; motorbike rides; casual offices; festivals

# Fashion > Outerwear > Jackets | 39-349 | Shirts; Dresses
type: puffer jacket; rain jacket; denim jacket; bomber jacket
gender: men's; women's; kids'
size: XS; S; M; L; XL
colour: black; khaki; mustard; navy; wine
+ sealed seams; packable hood; fleece lining; storm flap; two-way front zip
~ warmth; zip; hood; pockets; sleeves
@ wet commutes; ski trips; autumn walks; school gates

# Fashion > Accessories > Watches | 29-699 | Handbags; Shirts
type: analogue watch; diving watch; smartwatch; chronograph watch
strap: leather strap; steel bracelet; silicone strap; mesh strap
case: 34 mm; 38 mm; 42 mm; 46 mm
colour: silver; gold; black; gunmetal
+ sapphire crystal; 100 m water resistance; luminous hands; automatic movement; date window
~ strap; dial; clasp; accuracy; weight
@ anniversaries; swimming; formal dinners; daily wear

# Beauty > Skincare > Moisturisers | 8-89 | Sunscreen; Lipstick
type: face cream; gel moisturiser; night cream; body lotion
volume: 30 ml; 50 ml; 200 ml; 400 ml
skin type: dry skin; oily skin; sensitive skin; combination skin
scent: fragrance-free; rose; green tea
+ hyaluronic acid; ceramides; niacinamide; shea butter; squalane
~ texture; scent; absorption; pump; packaging
@ winter dryness; under make-up; itchy legs; retinol nights

# Beauty > Skincare > Sunscreen | 7-49 | Moisturisers; Lipstick
type: face sunscreen; sunscreen spray; sunscreen stick; kids' sunscreen
protection: SPF 30; SPF 50; SPF 50+
volume: 15 g; 50 ml; 150 ml; 250 ml
+ mineral filters; no white cast; water-resistant film; reef-friendly formula; matte finish
~ white cast; scent; texture; spray; stickiness
@ beach holidays; pale skin; daily city wear; swimming lessons

# Beauty > Make-up > Lipstick | 5-45 | Moisturisers; Sunscreen
type: matte lipstick; lip gloss; lip balm; liquid lipstick
shade: brick red; nude rose; berry; coral; plum
volume: 2 g; 4 g; 6 ml
+ vitamin E; transfer-proof wear; vanilla scent; refillable case; plumping effect
~ pigment; wear; scent; texture; case
@ date nights; dry lips; office looks; brides

# Beauty > Hair > Shampoo | 5-39 | Hair Dryers
type: moisturising shampoo; anti-dandruff shampoo; volumising shampoo; solid shampoo
volume: 80 g; 250 ml; 500 ml; 1 L
hair type: curly hair; fine hair; coloured hair; dry hair
scent: coconut; rosemary; mint; almond
+ sulphate-free base; argan oil; biotin; pump bottle; refill pouch
~ scent; lather; bottle; residue; shine
@ hard water; itchy scalps; gym bags; frizzy days

# Beauty > Hair > Hair Dryers | 19-329 | Shampoo
type: ionic hair dryer; travel hair dryer; hot air brush; diffuser dryer
power: 800 W; 1200 W; 1800 W; 2200 W
colour: black; rose; white; violet
+ cool shot button; foldable handle; concentrator nozzle; ceramic coating; three heat settings
~ noise; weight; cord; heat; nozzle
@ thick hair; gym lockers; curls; quick mornings

# Grocery > Drinks > Coffee Beans | 6-39 | Coffee Makers; Chocolate
type: whole bean coffee; ground coffee; coffee capsules; decaf coffee
roast: light roast; medium roast; dark roast; espresso roast
weight: 250 g; 500 g; 1 kg
origin: from Ethiopia; from Colombia; from Guatemala; from Sumatra
+ notes of cocoa; notes of red berries; single origin lot; freshness valve; fair trade certificate
~ aroma; taste; freshness; acidity; bag
@ pour-over brewing; moka pots; milk drinks; office machines

# Grocery > Drinks > Tea | 3-29 | Kettles; Chocolate
type: green tea; black tea; herbal tea; chai blend
format: loose leaf; tea bags; pyramid bags
pack: 20 bags; 50 bags; 100 g; 250 g
origin: from Assam; from Uji; from Ceylon; from Yunnan
+ jasmine blossom; organic certificate; plastic-free bags; bergamot oil; hand-picked leaves
~ aroma; taste; bags; freshness; strength
@ slow breakfasts; iced pitchers; bedtime; sore throats

# Grocery > Pantry > Olive Oil | 6-49 | Pasta; Cookware
type: extra virgin olive oil; infused olive oil; olive oil spray; cooking oil
volume: 200 ml; 500 ml; 750 ml; 3 L
origin: from Crete; from Andalusia; from Puglia; from Tunisia
flavour: classic; lemon; chilli; basil
+ cold-pressed fruit; early harvest; dark glass bottle; low acidity; peppery finish
~ taste; bottle; cap; aroma; freshness
@ salads; dipping bread; roasting vegetables; gift hampers

# Grocery > Pantry > Pasta | 2-19 | Olive Oil; Food Storage
type: spaghetti; penne; gluten-free fusilli; fresh tagliatelle
weight: 250 g; 500 g; 1 kg; 3 kg
flour: durum wheat; wholewheat; red lentil; chickpea
+ bronze die; slow drying; high protein; free-range egg; compostable pack
~ texture; taste; cooking time; pack; sauce hold
@ weeknight dinners; meal prep; picky kids; carbonara

# Grocery > Sweets > Chocolate | 2-45 | Coffee Beans; Tea
type: dark chocolate bar; milk chocolate bar; chocolate truffles; hot chocolate
cocoa: 35 %; 55 %; 70 %; 85 %
weight: 80 g; 100 g; 200 g; 500 g
flavour: sea salt; hazelnut; orange; raspberry; plain
+ bean-to-bar process; vegan recipe; gift ribbon; organic cocoa butter; single estate beans
~ taste; texture; packaging; aftertaste; freshness
@ thank-you gifts; baking; movie nights; lunch boxes

# Grocery > Sweets > Cereal Bars | 2-35 | Water Bottles; Coffee Beans
type: oat bar; protein bar; fruit bar; nut bar
flavour: peanut; apricot; cherry; cocoa
pack: 4 x 35 g; 6 x 40 g; 12 x 45 g; 24 x 50 g
+ 20 g of protein; no added sugar; wholegrain oats; gluten-free recipe; recyclable wrapper
~ taste; texture; wrapper; sweetness; ingredients
@ hikes; school snacks; post-workout hunger; busy mornings

# Grocery > Breakfast > Honey | 4-39 | Tea; Cereal Bars
type: wildflower honey; acacia honey; manuka honey; creamed honey
weight: 250 g; 340 g; 500 g; 1 kg
origin: from Anatolia; from Provence; from Otago; from Transylvania
+ raw harvest; glass jar; wooden dipper; traceable hives; squeezy lid
~ taste; jar; texture; lid; aroma
@ toast; sore throats; marinades; herbal infusions
"""
